"""An experiment goes in; each template that it asks with is kept in registries of prompts, and what it came to beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from llmrank.evaluation.running.contenders import templates_used
from llmrank.experiment.findings import Findings
from llmrank.experiment.folder import ExperimentFolder
from llmrank.experiment.spec import Spec
from llmrank.registry import Registry


def keep_prompts(spec: Spec, folder: ExperimentFolder, *registries: Registry) -> None:
    """Keeps every variant's templates as they are now, in the experiment's own registry and in others.

    Raises:
        DatasetError: a registry cannot be read or written.
    """
    for registry in (own_registry(folder), *registries):
        for variant, config in spec.variants.items():
            for template in templates_used(config):
                registry.add(template, note=f"{spec.name}: {variant}")


def note_results(findings: Findings, folder: ExperimentFolder, *registries: Registry) -> None:
    """Notes what each variant's templates came to in the primary measure.

    Two variants may share a template: then the results of both stand there, each under the experiment's and its own name.

    Raises:
        DatasetError: a registry cannot be read or written.
    """
    means = {findings.control: findings.of(findings.primary)[0].control_mean}
    means |= {effect.variant: effect.variant_mean for effect in findings.of(findings.primary)}
    for registry in (own_registry(folder), *registries):
        known = {version.reference for version in registry.versions()}
        for variant, reference in _references(findings, folder.manifest["templates"]):
            # A registry that was not there when the experiment ran has no files to render; what is undefined is no result.
            if reference in known and math.isfinite(means[variant]):
                registry.result(
                    reference,
                    experiment=f"{findings.name}: {variant}",
                    measure=findings.primary.name,
                    value=means[variant],
                    users=findings.users,
                    date=findings.created,
                )


def own_registry(folder: ExperimentFolder) -> Registry:
    """The registry in an experiment's folder."""
    return Registry(folder.path / "prompts.jsonl")


def _references(findings: Findings, templates: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for variant in (findings.control, *findings.variants):
        for name, fingerprint in templates.get(variant, {}).items():
            yield variant, f"{name}@{fingerprint}"
