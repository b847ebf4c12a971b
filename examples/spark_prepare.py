"""Write prepared data with Spark, for interactions that one machine reads too slowly.

    pip install 'pyspark>=4'    # and a Java runtime
    spark-submit examples/spark_prepare.py recall.toml FOLDER PREPARED [ROWS_IN_A_SHARD]

The result is what `recall data prepare` writes, as docs/reference/prepared-data.md describes it: `recall train recall.toml
--data PREPARED` gives the same model. For configurations whose interactions are Parquet, with ids that are whole numbers or
text in canonical form, times that are numbers, and no settings that leave rows out. Tables of users and items stay small: they
are read by polars.
"""

import shutil
import sys
from pathlib import Path

import polars as pl
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as f

from recall._file_system import file_sha256
from recall.config import DataConfig, load_config
from recall.data.columns import find_columns
from recall.data.dataset import open_tables
from recall.data.files import files_of
from recall.data.prepared_manifest import ITEM, SHARDS, TIME, USER, WEIGHT, write_manifest
from recall.data.tables import UNFINISHED

_REFUSED = ("label", "outcome", "events", "since", "until", "user_columns", "item_columns", "text", "formats")
_PLAIN = (("repeats", "keep"), ("min_user", 1), ("min_item", 1), ("missing_ids", "error"))


def main(config_path: Path, root: Path, out: Path, rows_in_a_shard: int = 2_000_000) -> None:
    """Prepare the tables of a configuration.

    Args:
        config_path: the TOML file.
        root: folder of the tables.
        out: a new folder.
        rows_in_a_shard: about so many.
    """
    config = load_config(config_path)
    data = config.data
    others = [name for name in _REFUSED if getattr(data, name) not in (None, (), {})]
    others += [name for name, plain in _PLAIN if getattr(data, name) != plain]
    if others:
        sys.exit(f"this job does not know data.{', data.'.join(others)}: use recall data prepare")
    tables = open_tables(data, root)
    columns = find_columns(config.schema_, data, tables)
    (out / SHARDS).mkdir(parents=True)
    (out / UNFINISHED).touch()
    spark = SparkSession.builder.appName("recall-prepare").getOrCreate()
    rows = placed(spark, files_of(root / data.interactions))
    listed = {}
    for side, table, key, fields in (
        ("user", tables.users, data.user_id, (*columns.users, *columns.user_attributes)),
        ("item", tables.items, data.item_id, (*columns.items, *columns.item_attributes)),
    ):
        listed[side] = pl.DataFrame(schema={key: pl.String()})
        if table is not None:
            dates = [data.available_from] if side == "item" and data.available_from is not None else []
            own = table.collect([key, *fields, *dates])
            own.write_parquet(out / f"{side}s.parquet")
            listed[side] = own.select(pl.col(key).cast(pl.String))
    users = numbered(spark, rows, data.user_id, USER, listed["user"])
    items = numbered(spark, rows, data.item_id, ITEM, listed["item"])
    for side, ids, number in (("user", users, USER), ("item", items, ITEM)):
        one_file(ids.orderBy(number).select("id"), out / f"{side}_ids.parquet")
    encoded = rows.join(users, rows[data.user_id].cast("string") == users["id"]).drop("id")
    encoded = encoded.join(items, encoded[data.item_id].cast("string") == items["id"]).drop("id")
    shards(copied(encoded, data, columns.context), -(-rows.count() // rows_in_a_shard), out)
    named = (root / path for path in data.files.values())
    write_manifest(data, out, {str(path.relative_to(root)): file_sha256(path) for one in named for path in files_of(one)})
    spark.stop()


def placed(spark: SparkSession, files: list[Path]) -> DataFrame:
    """Read the interactions, with the place of each in the source.

    Args:
        spark: the session.
        files: of the table, in order.
    """
    names = [path.name for path in files]
    if len(set(names)) < len(names):
        sys.exit("two files of the interactions have one name: rename them, since their order decides")
    number = f.array_position(f.array(*map(f.lit, names)), f.col("_metadata.file_name"))
    place = number * f.lit(1 << 40) + f.col("_metadata.row_index")  # Spark reads parts of files in any order
    return spark.read.parquet(*map(str, files)).withColumn("row", place).cache()


def numbered(spark: SparkSession, rows: DataFrame, key: str, number: str, listed: pl.DataFrame) -> DataFrame:
    """Number the ids: those of the table first, then the others by their first row.

    Args:
        spark: the session.
        rows: the interactions, with their place in the source.
        key: the column of ids.
        number: name of the column of numbers.
        listed: ids of the table.
    """
    known = [(-len(listed) + place, one) for place, one in enumerate(listed.to_series().to_list())]
    first = rows.groupBy(f.col(key).cast("string").alias("id")).agg(f.min("row").alias("first"))
    both = (
        spark.createDataFrame(known, "first long, id string")
        .unionByName(first)
        .groupBy("id")
        .agg(f.min("first").alias("first"))
    )
    return both.withColumn(number, (f.row_number().over(Window.orderBy("first")) - 1).cast("int")).drop("first").cache()


def copied(rows: DataFrame, data: DataConfig, context: tuple[str, ...]) -> DataFrame:
    """Return the columns of the contract, and the place in the source."""
    chosen = [f.col(USER), f.col(ITEM), f.col("row")]
    chosen += [f.col(data.time).alias(TIME)] if data.time is not None else []
    if data.weight is not None:  # a float of 32 bits is the number that it is written as, as recall reads it
        chosen.append(f.col(data.weight).cast("string").cast("double").alias(WEIGHT))
    split = getattr(data.split, "column", None)
    return rows.select(*chosen, *dict.fromkeys([*context, *([] if split is None else [split])]))


def shards(rows: DataFrame, most: int, out: Path) -> None:
    """Write the interactions by ranges of users, each range sorted."""
    keys = [USER, *([TIME] if TIME in rows.columns else []), "row"]
    parts = rows.repartitionByRange(most, USER).sortWithinPartitions(*keys).drop("row")
    parts.write.parquet(str(out / "spark"))
    for number, path in enumerate(sorted((out / "spark").glob("*.parquet"))):
        path.rename(out / SHARDS / f"part-{number:05}.parquet")
    shutil.rmtree(out / "spark")


def one_file(rows: DataFrame, path: Path) -> None:
    """Write a small table as one file."""
    folder = path.with_suffix(".spark")
    rows.coalesce(1).write.parquet(str(folder))
    (part,) = folder.glob("*.parquet")
    part.rename(path)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:]))
