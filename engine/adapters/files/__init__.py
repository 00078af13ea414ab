"""Files: records in from JSONL, CSV, TSV and Parquet, compressed or not; rows out to the same formats, atomically."""

from engine.adapters.files.row import OutputRow as OutputRow
from engine.adapters.files.sink import check_output_path as check_output_path
from engine.adapters.files.sink import write_rows as write_rows
from engine.adapters.files.source import FileSource as FileSource
