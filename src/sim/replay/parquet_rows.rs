//! Rows of a Parquet file, as the text that the same rows would have in CSV: what is refused there is refused here, in the
//! same words.

use super::recording::Wrong;
use super::rows::Rows;
use csv::StringRecord;
use jiff::Timestamp;
use parquet::basic::{Compression, LogicalType, TimeUnit};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};

/// What a Parquet file begins with.
pub(super) const MAGIC: &[u8] = b"PAR1";

/// The rows of a file, read group by group.
pub(super) struct ParquetRows {
    rows: RowIter<'static>,
    header: Vec<String>,
    /// Which columns count nanoseconds since 1970.
    nanoseconds: Vec<bool>,
    row: u64,
}

impl ParquetRows {
    /// Opens a file of at most so many rows.
    ///
    /// # Errors
    /// When it is no Parquet file, has too many rows, is compressed in a way that is not known here, or has times that are
    /// of no zone.
    pub(super) fn open(source: impl ChunkReader + 'static, most: usize) -> Result<Self, Wrong> {
        let reader = SerializedFileReader::new(source).map_err(|error| (1, unreadable(&error)))?;
        let metadata = reader.metadata();
        let rows = metadata.file_metadata().num_rows();
        if usize::try_from(rows).is_ok_and(|rows| rows > most) {
            return Err((most as u64 + 1, format!("the file has {rows} rows; expected at most {most}, of a shorter time or thinned out")));
        }
        let columns = metadata.file_metadata().schema_descr().columns();
        let chunks = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
        for chunk in chunks {
            compression(chunk.compression()).map_err(|problem| (1, format!("the column `{}` {problem}", chunk.column_path().string())))?;
        }
        let mut nanoseconds = Vec::new();
        for column in columns {
            let unit = match column.logical_type_ref() {
                Some(LogicalType::Timestamp(time)) if !time.is_adjusted_to_u_t_c => {
                    let name = column.name();
                    return Err((1, format!("the times of the column `{name}` are of no zone; expected times in UTC")));
                }
                Some(LogicalType::Timestamp(time)) => Some(&time.unit),
                Some(_) | None => None,
            };
            nanoseconds.push(matches!(unit, Some(TimeUnit::NANOS)));
        }
        let header = columns.iter().map(|column| column.name().to_owned()).collect();
        Ok(Self { rows: RowIter::from_file_into(Box::new(reader)), header, nanoseconds, row: 0 })
    }
}

impl Rows for ParquetRows {
    const PLACE: &'static str = "row";

    fn header(&mut self) -> Result<Vec<String>, Wrong> {
        Ok(self.header.clone())
    }

    fn next(&mut self, cells: &mut StringRecord) -> Result<Option<u64>, Wrong> {
        let Some(row) = self.rows.next() else { return Ok(None) };
        self.row += 1;
        let row: Row = row.map_err(|error| (self.row, unreadable(&error)))?;
        cells.clear();
        for ((_, field), is_nanoseconds) in row.get_column_iter().zip(&self.nanoseconds) {
            cells.push_field(&text(field, *is_nanoseconds));
        }
        Ok(Some(self.row))
    }

    fn reached(&self) -> u64 {
        self.row
    }
}

fn unreadable(error: &ParquetError) -> String {
    format!("it cannot be read as Parquet ({error}); expected a whole Parquet file, or CSV")
}

/// Refuses what nothing here can decompress.
fn compression(compression: Compression) -> Result<(), String> {
    match compression {
        Compression::UNCOMPRESSED | Compression::SNAPPY => Ok(()),
        Compression::GZIP(_)
        | Compression::LZO
        | Compression::BROTLI(_)
        | Compression::LZ4
        | Compression::ZSTD(_)
        | Compression::LZ4_RAW => {
            let name = format!("{compression:?}");
            let name = name.split('(').next().unwrap_or_default();
            Err(format!("is compressed with {name}; expected SNAPPY, or no compression"))
        }
    }
}

/// Writes a value as CSV has it; what is no time, number or text becomes a word that is refused as such.
fn text(field: &Field, is_nanoseconds: bool) -> String {
    let time = |time: Result<Timestamp, jiff::Error>, count: i64| time.map_or_else(|_| count.to_string(), |time| time.to_string());
    match field {
        Field::Null => String::new(),
        Field::Str(text) => text.clone(),
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into_owned(),
        Field::TimestampMillis(count) => time(Timestamp::from_millisecond(*count), *count),
        Field::TimestampMicros(count) => time(Timestamp::from_microsecond(*count), *count),
        Field::Long(count) if is_nanoseconds => time(Timestamp::from_nanosecond(i128::from(*count)), *count),
        Field::Double(value) => value.to_string(),
        Field::Float(value) => value.to_string(),
        Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_) => "a group".to_owned(),
        // Whole numbers and decimals, as digits.
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::recording::{PodsAsNodes, Recording};
    use super::*;
    use bytes::Bytes;
    use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, FloatType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
    use parquet::schema::parser::parse_message_type;
    use std::io::Write as _;
    use std::sync::Arc;

    /// A column of a file that is made up.
    enum Column<'a> {
        Whole(&'a [i64]),
        Double(&'a [f64]),
        Float(&'a [f32]),
        Text(&'a [&'a str]),
        /// With holes.
        Sparse(&'a [Option<f64>]),
    }

    fn write(group: &mut SerializedRowGroupWriter<'_, Vec<u8>>, column: &Column<'_>) {
        let mut writer = group.next_column().expect("it is written").expect("the schema has one more");
        let written = match column {
            Column::Whole(values) => writer.typed::<Int64Type>().write_batch(values, None, None),
            Column::Double(values) => writer.typed::<DoubleType>().write_batch(values, None, None),
            Column::Float(values) => writer.typed::<FloatType>().write_batch(values, None, None),
            Column::Text(values) => {
                let values: Vec<ByteArray> = values.iter().map(|text| ByteArray::from(*text)).collect();
                writer.typed::<ByteArrayType>().write_batch(&values, None, None)
            }
            Column::Sparse(values) => {
                let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
                let known: Vec<f64> = values.iter().flatten().copied().collect();
                writer.typed::<DoubleType>().write_batch(&known, Some(&levels), None)
            }
        };
        written.expect("it is written");
        writer.close().expect("it is closed");
    }

    /// Makes a file of groups of columns.
    fn file(schema: &str, compression: Compression, groups: &[&[Column<'_>]]) -> Bytes {
        let schema = Arc::new(parse_message_type(&format!("message rows {{ {schema} }}")).expect("a schema"));
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).expect("it can be written");
        for columns in groups {
            let mut group = writer.next_row_group().expect("a group");
            columns.iter().for_each(|column| write(&mut group, column));
            group.close().expect("it is closed");
        }
        Bytes::from(writer.into_inner().expect("it is whole"))
    }

    fn read(file: Bytes) -> Result<Recording, String> {
        read_sized(file, &PodsAsNodes::default(), 1000)
    }

    fn read_sized(file: Bytes, node: &PodsAsNodes, most: usize) -> Result<Recording, String> {
        let mut rows = ParquetRows::open(file, most).map_err(|(row, problem)| format!("row {row}: {problem}"))?;
        Recording::read_rows("demand.parquet", &mut rows, node).map_err(|error| error.to_string())
    }

    /// The first seconds of 2026, a minute apart.
    const SECONDS: [i64; 3] = [1_767_225_600, 1_767_225_660, 1_767_225_720];

    #[test]
    fn times_of_each_unit_and_as_text_are_those_of_csv() {
        let text = "timestamp,value\n2026-01-01T00:00:00Z,1.5\n2026-01-01T00:01:00Z,2\n2026-01-01T00:02:00Z,0.1\n";
        let expected = Recording::read("demand.csv", text.as_bytes()).expect("it can be read");
        let values = Column::Double(&[1.5, 2.0, 0.1]);
        for (unit, factor) in [("MILLIS", 1000), ("MICROS", 1_000_000), ("NANOS", 1_000_000_000)] {
            let schema = format!("required int64 timestamp (TIMESTAMP({unit},true)); required double value;");
            let times = SECONDS.map(|second| second * factor);
            for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
                let groups: [&[Column]; 2] =
                    [&[Column::Whole(&times[..2]), Column::Double(&[1.5, 2.0])], &[Column::Whole(&times[2..]), Column::Double(&[0.1])]];
                assert_eq!(read(file(&schema, compression, &groups)), Ok(expected.clone()), "{unit}, {compression:?}");
            }
        }
        let times = Column::Text(&["2026-01-01T00:00:00Z", "2026-01-01T01:01:00+01:00", "2026-01-01T00:02:00Z"]);
        let as_text = file("required binary timestamp (STRING); required double value;", Compression::SNAPPY, &[&[times, values]]);
        assert_eq!(read(as_text), Ok(expected.clone()));
        let schema = "required int64 timestamp (TIMESTAMP(MILLIS,true)); required float value;";
        let times = SECONDS.map(|second| second * 1000);
        let single = file(schema, Compression::SNAPPY, &[&[Column::Whole(&times), Column::Float(&[1.5, 2.0, 0.1])]]);
        assert_eq!(read(single), Ok(expected));
    }

    #[test]
    fn pods_are_read_as_those_of_csv() {
        let schema = "required int64 start (TIMESTAMP(MILLIS,true)); required int64 end (TIMESTAMP(MILLIS,true)); required double cpu; required int64 memory;";
        let times = SECONDS.map(|second| second * 1000);
        let columns = [Column::Whole(&times[..2]), Column::Whole(&times[1..]), Column::Double(&[2.0, 1.0]), Column::Whole(&[4, 16])];
        let node = PodsAsNodes { cores_per_memory: Some(0.25), no_cores: None };
        let recording = read_sized(file(schema, Compression::SNAPPY, &[&columns]), &node, 1000).expect("it can be read");
        assert_eq!(recording.values, [2.0, 4.0].map(Some));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_row_and_what_would_be_right() {
        const DEMAND: &str = "required int64 timestamp (TIMESTAMP(MILLIS,true)); optional double value;";
        let times = SECONDS.map(|second| second * 1000);
        let made = |schema: &str, columns: &[Column]| file(schema, Compression::SNAPPY, &[columns]);
        let sparse = Column::Sparse(&[Some(1.0), None, Some(2.0)]);
        let whole = || Column::Double(&[1.0, -2.0, 3.0]);
        let backwards = [times[1], times[0], times[2]];
        let required = DEMAND.replace("optional", "required");
        let good = made(&required, &[Column::Whole(&times), Column::Double(&[1.0, 2.0, 3.0])]);
        for (file, words) in [
            (made(DEMAND, &[Column::Whole(&times), sparse]), &["row 2: `` is no number", "from 0 up"][..]),
            (made(&required, &[Column::Whole(&times), whole()]), &["row 2: the value -2 is negative"]),
            (made(&required, &[Column::Whole(&backwards), whole()]), &["row 2: ", "earlier than that of row 1", "forward"]),
            (
                made(&required.replace("timestamp", "time"), &[Column::Whole(&times), whole()]),
                &["row 1", "`time,value`", "`timestamp,value`"],
            ),
            (made(&required.replace("true", "false"), &[Column::Whole(&times), whole()]), &["row 1", "`timestamp`", "no zone", "UTC"]),
            (
                made("required int64 timestamp; required double value;", &[Column::Whole(&times), whole()]),
                &["row 1: `1767225600000` is no time"],
            ),
            (made(&required, &[Column::Whole(&[]), Column::Double(&[])]), &["0 rows of demand", "two or more"]),
            (good.slice(..good.len() - 20), &["row 1", "cannot be read as Parquet", "a whole Parquet file"]),
            (Bytes::from_static(b"PAR1"), &["row 1", "cannot be read as Parquet"]),
        ] {
            let error = read(file).expect_err(words[0]);
            assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
        }
        let error = read_sized(good, &PodsAsNodes::default(), 2).expect_err("it has three rows");
        assert!(error.contains("row 3: the file has 3 rows; expected at most 2"), "{error}");
    }

    #[test]
    fn a_compression_that_is_not_known_is_named_with_those_that_are() {
        let gzip = compression(Compression::GZIP(parquet::basic::GzipLevel::default()));
        assert_eq!(gzip, Err("is compressed with GZIP; expected SNAPPY, or no compression".to_owned()));
        assert_eq!((compression(Compression::SNAPPY), compression(Compression::UNCOMPRESSED)), (Ok(()), Ok(())));
    }

    #[test]
    fn what_a_file_is_says_its_beginning_and_not_its_name() {
        let schema = "required int64 timestamp (TIMESTAMP(MILLIS,true)); required double value;";
        let times = SECONDS.map(|second| second * 1000);
        let parquet = file(schema, Compression::SNAPPY, &[&[Column::Whole(&times), Column::Double(&[1.0, 2.0, 3.0])]]);
        let csv = "timestamp,value\n2026-01-01T00:00:00Z,1\n2026-01-01T00:01:00Z,2\n2026-01-01T00:02:00Z,3\n";
        let read = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(bytes).and_then(|()| std::io::Seek::rewind(&mut file)).expect("it is written");
            Recording::read_file("demand", file, &PodsAsNodes::default()).map_err(|error| format!("{error:#}"))
        };
        let expected = Ok(vec![Some(1.0), Some(2.0), Some(3.0)]);
        assert_eq!(read(&parquet).map(|recording| recording.values), expected);
        assert_eq!(read(csv.as_bytes()).map(|recording| recording.values), expected);
        assert!(read(b"").is_err_and(|error| error.starts_with("demand, line 1: the file is empty")));
        assert!(read(&parquet[..40]).is_err_and(|error| error.starts_with("demand, row 1: it cannot be read as Parquet")));
    }
}
