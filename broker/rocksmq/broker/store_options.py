"""How RocksDB is set up: for few large values, that are read once soon after they were written, or much later in order."""

from rocksdict import BlockBasedOptions, Cache, ChecksumType, DBCompressionType, Options

from .tables import FORMAT_VERSION

MIB = 1 << 20
MEMTABLES_MAX = 3  # bounds the logs too, which live as long as a memtable does, and the replay at start: 3.5 s a GB
LEVEL_PIECES = 4  # in the level below level 0, which is rewritten as a whole; about as many in any other compaction
LEVEL0_FILES_SLOW = 20  # RocksDB delays writes then, until compaction has come after


def options_of(cache: Cache) -> Options:
    """Of the database and of each family, without the sizes that `in_pieces` sets."""
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_block_size(32 * 1024)
    table.set_format_version(FORMAT_VERSION)
    table.set_checksum_type(ChecksumType.xxh3())  # rocksdict's crc32c is in software: half of what making a table took
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_block_based_table_factory(table)
    options.set_max_write_buffer_number(MEMTABLES_MAX)
    options.set_level_zero_slowdown_writes_trigger(LEVEL0_FILES_SLOW)
    options.set_max_background_jobs(2)
    options.set_bytes_per_sync(MIB)
    options.set_wal_bytes_per_sync(MIB)
    options.set_compression_type(DBCompressionType.lz4())  # zstd at the bottom takes the core that produce needs
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_paranoid_checks(True)
    options.set_max_open_files(1_000)
    options.set_max_log_file_size(16 * MIB)
    options.set_keep_log_file_num(5)
    return options


def in_pieces(options: Options, piece_bytes: int) -> Options:
    """With the sizes of a disk on which memtables and tables are of ``piece_bytes`` (disk.py)."""
    options.set_write_buffer_size(piece_bytes)
    options.set_db_write_buffer_size(MEMTABLES_MAX * piece_bytes)
    options.set_max_total_wal_size((MEMTABLES_MAX + 1) * piece_bytes)
    options.set_target_file_size_base(piece_bytes)
    options.set_max_bytes_for_level_base(LEVEL_PIECES * piece_bytes)
    options.set_max_compaction_bytes(LEVEL_PIECES * piece_bytes)
    options.set_max_manifest_file_size(piece_bytes)
    options.set_max_log_file_size(max(MIB, piece_bytes // 4))
    return options
