"""More than one machine, or one sitting: shards of Parquet files, Ray, and batch APIs."""
