//! Datasets: every format gives the same rows, compressed or not, and what is cut or ragged is refused by name.

use std::io::Write;
use std::path::Path;

use records::dataset::{self, Dataset, InputFormat, Options};
use records::{Error, Fault, Limits, Place};
use serde_json::{Map, Value, json};

type Object = Map<String, Value>;

fn rows(dataset: Result<Dataset, Error>) -> Result<Vec<Object>, Error> {
    dataset?.map(|row| row.map(|row| row.value)).collect()
}

fn read(format: InputFormat, input: impl AsRef<[u8]>) -> Result<Vec<Object>, Error> {
    rows(
        Options::new()
            .format(format)
            .read(std::io::Cursor::new(input.as_ref().to_vec())),
    )
}

fn objects(values: Value) -> Vec<Object> {
    values
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_object().unwrap().clone())
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn three() -> Vec<Object> {
    objects(
        json!([{"id": "1", "text": "one"}, {"id": "2", "text": "two, with \"quotes\" and\na line"}, {"id": "3", "text": "drei ü"}]),
    )
}

const JSONL: &str = "{\"id\":\"1\",\"text\":\"one\"}\n{\"id\":\"2\",\"text\":\"two, with \\\"quotes\\\" and\\na line\"}\n{\"id\":\"3\",\"text\":\"drei ü\"}\n";
const CSV: &str = "id,text\n1,one\n2,\"two, with \"\"quotes\"\" and\na line\"\n3,drei ü\n";
const TSV: &str = "id\ttext\n1\tone\n2\t\"two, with \"\"quotes\"\" and\na line\"\n3\tdrei ü\n";

fn json_array() -> String {
    serde_json::to_string_pretty(&three()).unwrap()
}

#[test]
fn every_format_gives_the_same_rows_compressed_or_not() {
    let directory = tempfile::tempdir().unwrap();
    for (extension, text) in [("jsonl", JSONL), ("json", &json_array()), ("csv", CSV), ("tsv", TSV)] {
        let plain = text.as_bytes().to_vec();
        // Two members, as `cat a.gz b.gz` makes them.
        let (one, two) = plain.split_at(plain.len() / 2);
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let variants = [
            (extension.to_owned(), plain.clone()),
            (format!("{extension}.gz"), [gzip(one), gzip(two)].concat()),
            (format!("{extension}.zst"), [zstd(one), zstd(two)].concat()),
            // Compression is told by content, whatever the name says.
            (format!("copy.{extension}"), zstd(&plain)),
        ];
        for (name, bytes) in variants {
            let path = directory.path().join(format!("data.{name}"));
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(
                rows(dataset::open(&path, InputFormat::Auto)).unwrap(),
                three(),
                "{name}"
            );
            let mut named = Options::new().digest(true).open(&path).unwrap();
            assert!(named.digest().is_none(), "not before the last row");
            assert_eq!(named.by_ref().count(), 3);
            assert_eq!(
                named.digest().unwrap(),
                format!("blake3:{}", blake3::hash(&bytes).to_hex())
            );
        }
    }
}

#[test]
fn content_decides_where_no_name_does() {
    assert_eq!(read(InputFormat::Auto, JSONL).unwrap(), three());
    assert_eq!(read(InputFormat::Auto, json_array()).unwrap(), three());
    assert_eq!(read(InputFormat::Auto, gzip(JSONL.as_bytes())).unwrap(), three());
    assert!(matches!(
        read(InputFormat::Auto, CSV).unwrap_err().fault,
        Fault::FormatUnknown
    ));
    assert!(matches!(
        read(InputFormat::Auto, "").unwrap_err().fault,
        Fault::InputEmpty
    ));
}

#[test]
fn json_misnamed_as_json_lines_and_the_other_way_round_is_read() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [("a.jsonl", json_array()), ("b.json", JSONL.to_owned())] {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        assert_eq!(
            rows(dataset::open(&path, InputFormat::Auto)).unwrap(),
            three(),
            "{name}"
        );
    }
}

#[test]
fn a_json_array_is_read_however_it_is_spaced() {
    let expected = objects(json!([{"a": "]},{["}, {"b": {"c": [[1], {"d": "\\\""}]}}]));
    for text in [
        r#"[{"a":"]},{["},{"b":{"c":[[1],{"d":"\\\""}]}}]"#,
        "\u{FEFF} [ \n{\"a\" : \"]},{[\"}\r\n,\t{\"b\":{\"c\":[[1],{\"d\":\"\\\\\\\"\"}]}} ] \n",
        "{\"a\":\"]},{[\"}{\"b\":\n{\"c\":[[1],{\"d\":\"\\\\\\\"\"}]}}\n",
    ] {
        assert_eq!(read(InputFormat::Json, text).unwrap(), expected, "{text}");
    }
    assert_eq!(read(InputFormat::Json, "[]").unwrap(), Vec::<Object>::new());
}

#[test]
fn a_damaged_json_array_is_refused_with_the_row() {
    for (text, row) in [
        (r#"[{"a":1} {"a":2}]"#, 1),
        (r#"[{"a":1},]"#, 1),
        (r#"[,{"a":1}]"#, 0),
        (r#"[{"a":1},,{"a":1}]"#, 1),
        (r#"[{"a":1}"#, 1),
        (r#"[{"a":1},"#, 1),
        (r#"[{"a":1},{"a":"#, 1),
        (r#"[{"a":1},{"a":"x"#, 1),
        (r#"[{"a":1}] []"#, 1),
        (r#"[{"a":1},2]"#, 1),
        (r#"[{"a":1},[2]]"#, 1),
        (r#"[{"a":1},{"a":1,"a":2}]"#, 1),
        (r#"[{"a":1}}]"#, 1),
        (r#"{"a":1}]"#, 1),
        ("[{\"a\":1},{\"a\":\"\0\"}]", 1),
    ] {
        let error = read(InputFormat::Json, text).unwrap_err();
        assert_eq!(error.place, Place::Row(row), "{text}: {error}");
    }
}

#[test]
fn a_json_array_cut_at_any_byte_is_refused() {
    let whole = json_array();
    for length in 0..whole.len() {
        assert!(
            read(InputFormat::Json, &whole.as_bytes()[..length]).is_err(),
            "cut at byte {length}"
        );
    }
}

#[test]
fn rows_and_records_are_bounded_in_every_text_format() {
    let limits = Limits {
        line_bytes: 1000,
        ..Limits::default()
    };
    let long = "x".repeat(300_000);
    for (format, text) in [
        (InputFormat::Jsonl, format!("{{\"a\":1}}\n{{\"a\":\"{long}\"}}\n")),
        (InputFormat::Json, format!("[{{\"a\":1}},{{\"a\":\"{long}\"}}]")),
        (InputFormat::Csv, format!("a\n1\n{long}\n")),
        (InputFormat::Csv, format!("a\n1\n\"{long}")),
        (InputFormat::Csv, format!("a\n1\n\"{}", "x\n".repeat(100_000))),
        (InputFormat::Text, format!("a\n{long}\n")),
    ] {
        let input = std::io::Cursor::new(text.into_bytes());
        let results: Vec<_> = match Options::new().format(format).limits(limits).read(input) {
            Ok(dataset) => dataset.collect(),
            Err(error) => vec![Err(error)],
        };
        let error = results.into_iter().next_back().unwrap().unwrap_err();
        assert!(
            matches!(error.fault, Fault::LineTooLong { limit: 1000 }),
            "{format}: {error}"
        );
    }
}

#[test]
fn csv_quotes_line_ends_and_marks_are_read_as_spreadsheets_write_them() {
    let expected = objects(json!([{"id": "1", "text": "a\r\nb"}, {"id": "", "text": "5\" disk"}]));
    assert_eq!(
        read(InputFormat::Csv, "\u{FEFF}id,text\r\n1,\"a\r\nb\"\r\n,5\" disk\r\n").unwrap(),
        expected
    );
    assert_eq!(
        read(InputFormat::Csv, "id,text\n1,\"a\r\nb\"\n\n,5\" disk").unwrap(),
        expected
    );
    assert_eq!(read(InputFormat::Csv, "id,text\n").unwrap(), Vec::<Object>::new());
}

#[test]
fn csv_that_is_ragged_repeated_or_cut_inside_quotes_is_refused_with_its_line() {
    let refuse = |text: &[u8]| read(InputFormat::Csv, text).unwrap_err();
    let error = refuse(b"a,b\n1,\"x\ny\"\n1\n");
    assert!(
        matches!(error.fault, Fault::ColumnCountMismatch { found: 1, expected: 2 }),
        "{error}"
    );
    assert_eq!(error.place, Place::Line(4));
    assert!(matches!(refuse(b"a,b,a\n").fault, Fault::ColumnDuplicate { .. }));
    assert!(matches!(refuse(b"a,b\n1,\"cut off").fault, Fault::Truncated(_)));
    assert!(matches!(refuse(b"a,b\n1,2\n3,\"cut\noff\n").fault, Fault::Truncated(_)));
    assert_eq!(refuse(b"a\n\xff\n").place, Place::Line(2));
    assert!(refuse(b"a\nx\0y\n").to_string().contains("NUL"));
}

#[test]
fn a_truncated_gzip_or_zstd_stream_is_refused_with_the_line_it_stopped_at() {
    let text: String = (0..20_000_u64)
        .map(|row| {
            format!(
                "{{\"id\":\"{row}\",\"x\":\"{}\"}}\n",
                row.wrapping_mul(0x9E37_79B9_7F4A_7C15)
            )
        })
        .collect();
    for (name, bytes) in [
        ("gzip", gzip(text.as_bytes())),
        ("zstd", zstd::encode_all(text.as_bytes(), 1).unwrap()),
    ] {
        for length in [bytes.len() / 2, bytes.len() - 9, bytes.len() - 1] {
            let error = read(InputFormat::Jsonl, &bytes[..length]).unwrap_err();
            assert!(
                matches!(error.fault, Fault::Truncated(_)),
                "{name} at {length}: {error}"
            );
            assert!(matches!(error.place, Place::Line(line) if line > 0), "{name}: {error}");
        }
    }
}

#[test]
fn a_damaged_gzip_stream_is_refused() {
    let mut bytes = gzip(JSONL.repeat(500).as_bytes());
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    assert!(read(InputFormat::Jsonl, bytes).is_err());
}

#[test]
fn plain_text_is_a_line_a_row_without_blank_lines() {
    let mut dataset = Options::new()
        .format(InputFormat::Text)
        .read("\u{FEFF}one\r\n\n  two\n".as_bytes())
        .unwrap();
    let one = dataset.next().unwrap().unwrap();
    let two = dataset.next().unwrap().unwrap();
    assert_eq!((one.text("text").unwrap(), one.index, one.line), ("one", 0, Some(1)));
    assert_eq!((two.text("text").unwrap(), two.index, two.line), ("  two", 1, Some(3)));
    assert_eq!((one.id().unwrap(), two.id().unwrap()), ("#0".into(), "#1".into()));
}

#[test]
fn record_streams_of_ours_are_datasets_and_must_end() {
    let stream = "{\"type\":\"begin\",\"schema\":\"flowlens/1\",\"tool\":\"t\",\"version\":\"0\"}\n{\"type\":\"prompt\",\"id\":7}\n";
    assert!(matches!(
        read(InputFormat::Auto, stream).unwrap_err().fault,
        Fault::EndMissing { .. }
    ));
    let ended = format!("{stream}{{\"type\":\"end\",\"row_count\":1,\"status\":\"partial\"}}\n").into_bytes();
    assert!(matches!(
        read(InputFormat::Auto, &ended).unwrap_err().fault,
        Fault::PartialInput { .. }
    ));
    let mut dataset = Options::new()
        .accept_partial(true)
        .fields(&["id"])
        .read(std::io::Cursor::new(ended))
        .unwrap();
    assert_eq!(dataset.next().unwrap().unwrap().id().unwrap(), "7");
    assert!(dataset.next().is_none());
    assert_eq!(dataset.status(), records::Status::Partial);
}

#[test]
fn a_projection_keeps_the_named_keys_alone_in_every_format() {
    let expected: Vec<Object> = three()
        .into_iter()
        .map(|mut row| {
            row.shift_remove("id");
            row
        })
        .collect();
    for (format, text) in [
        (InputFormat::Jsonl, JSONL),
        (InputFormat::Json, &json_array()),
        (InputFormat::Csv, CSV),
    ] {
        let input = std::io::Cursor::new(text.as_bytes().to_vec());
        let dataset = Options::new().format(format).fields(&["text", "absent"]).read(input);
        assert_eq!(rows(dataset).unwrap(), expected, "{format}");
    }
}

#[test]
fn every_format_name_is_read_as_it_is_shown() {
    for name in InputFormat::NAMES {
        assert_eq!(name.parse::<InputFormat>().unwrap().to_string(), name);
    }
    assert!("xml".parse::<InputFormat>().is_err());
}

#[test]
fn a_missing_file_keeps_its_system_error() {
    let error = dataset::open(Path::new("/nonexistent/x.jsonl"), InputFormat::Auto)
        .err()
        .unwrap();
    assert!(matches!(&error.fault, Fault::Io(source) if source.kind() == std::io::ErrorKind::NotFound));
}

#[cfg(feature = "parquet")]
mod parquet {
    use std::sync::Arc;

    use ::parquet::arrow::ArrowWriter;
    use arrow_array::builder::{ListBuilder, StringBuilder};
    use arrow_array::types::Int8Type;
    use arrow_array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int64Array,
        RecordBatch, StringArray, StructArray, Time64MicrosecondArray, TimestampMillisecondArray, UInt64Array,
    };

    use super::*;

    fn file(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties = ::parquet::file::properties::WriterProperties::builder()
            .set_max_row_group_row_count(Some(300))
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    fn thousand() -> Vec<u8> {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(
            (0..1000).map(|row| format!("text {row}")),
        ));
        file(vec![("id", ids), ("text", texts)])
    }

    #[test]
    fn rows_come_in_order_over_row_groups_from_a_file_and_from_a_pipe() {
        let bytes = thousand();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.parquet");
        std::fs::write(&path, &bytes).unwrap();
        let mut from_file = Options::new().fields(&["text"]).digest(true).open(&path).unwrap();
        for (index, row) in from_file.by_ref().enumerate() {
            let row = row.unwrap();
            assert_eq!(row.value, objects(json!([{"text": format!("text {index}")}]))[0]);
            assert_eq!(row.index, index as u64);
        }
        assert_eq!(from_file.row_count(), 1000);
        assert_eq!(
            from_file.digest().unwrap(),
            format!("blake3:{}", blake3::hash(&bytes).to_hex())
        );
        let whole = rows(dataset::open(&path, InputFormat::Auto)).unwrap();
        assert_eq!(whole[999]["id"], 999);
        assert_eq!(read(InputFormat::Auto, &bytes).unwrap(), whole);
        assert_eq!(read(InputFormat::Parquet, gzip(&bytes)).unwrap(), whole);
        // Named otherwise, and still a Parquet file.
        let other = directory.path().join("data.bin");
        std::fs::write(&other, &bytes).unwrap();
        assert_eq!(rows(dataset::open(&other, InputFormat::Auto)).unwrap(), whole);
    }

    #[test]
    fn every_kind_of_column_becomes_the_json_that_it_means() {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("a"), None]);
        lists.append_null();
        let inner: ArrayRef = Arc::new(StringArray::from(vec!["user", "assistant"]));
        let field = arrow_schema::Field::new("role", arrow_schema::DataType::Utf8, false);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("text", Arc::new(StringArray::from(vec![Some("é"), None]))),
            ("big", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
            ("single", Arc::new(Float32Array::from(vec![0.1, -0.0]))),
            ("double", Arc::new(Float64Array::from(vec![0.1, 1e300]))),
            ("flag", Arc::new(BooleanArray::from(vec![true, false]))),
            ("list", Arc::new(lists.finish())),
            ("turn", Arc::new(StructArray::from(vec![(Arc::new(field), inner)]))),
            ("kind", Arc::new(DictionaryArray::<Int8Type>::from_iter(["x", "y"]))),
        ];
        let expected = json!([
            {"text": "é", "big": u64::MAX, "single": 0.1, "double": 0.1, "flag": true, "list": ["a", null], "turn": {"role": "user"}, "kind": "x"},
            {"text": null, "big": 0, "single": -0.0, "double": 1e300, "flag": false, "list": null, "turn": {"role": "assistant"}, "kind": "y"},
        ]);
        assert_eq!(read(InputFormat::Parquet, file(columns)).unwrap(), objects(expected));
    }

    #[test]
    fn dates_times_and_decimals_are_their_usual_text() {
        let moment = vec![Some(1_796_000_000_250), None];
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("date", Arc::new(Date32Array::from(vec![20_786, -1]))),
            ("time", Arc::new(Time64MicrosecondArray::from(vec![34_200_000_001, 0]))),
            ("local", Arc::new(TimestampMillisecondArray::from(moment.clone()))),
            (
                "zoned",
                Arc::new(TimestampMillisecondArray::from(moment).with_timezone("Europe/Zurich")),
            ),
            (
                "price",
                Arc::new(
                    Decimal128Array::from(vec![12_345, -5])
                        .with_precision_and_scale(9, 2)
                        .unwrap(),
                ),
            ),
        ];
        let expected = json!([
            {"date": "2026-11-29", "time": "09:30:00.000001", "local": "2026-11-30T00:53:20.250", "zoned": "2026-11-30T00:53:20.250Z", "price": "123.45"},
            {"date": "1969-12-31", "time": "00:00:00", "local": null, "zoned": null, "price": "-0.05"},
        ]);
        assert_eq!(read(InputFormat::Parquet, file(columns)).unwrap(), objects(expected));
    }

    #[test]
    fn a_number_that_is_not_finite_is_refused_with_row_and_column() {
        let error = read(
            InputFormat::Parquet,
            file(vec![("x", Arc::new(Float64Array::from(vec![1.0, f64::NAN])))]),
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "row index 1: non-finite number in `x`");
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_and_never_a_panic() {
        let bytes = thousand();
        for length in (0..bytes.len()).step_by(97).chain(bytes.len() - 9..bytes.len()) {
            assert!(
                read(InputFormat::Parquet, &bytes[..length]).is_err(),
                "cut at byte {length} of {}",
                bytes.len()
            );
        }
    }
}

/// What blocks, and what rows, give: index, line and keys, or the message.
type Seen = Vec<Result<(u64, Option<u64>, Object), String>>;

fn in_blocks(options: &Options, input: impl AsRef<[u8]>, row_count_max: u64) -> Seen {
    let source = match options.read_source(std::io::Cursor::new(input.as_ref().to_vec())) {
        Ok(source) => source,
        Err(error) => return vec![Err(error.to_string())],
    };
    let show = |row: Result<dataset::Row, Error>| match row {
        Ok(row) => Ok((row.index, row.line, row.value)),
        Err(error) => Err(error.to_string()),
    };
    let mut seen = Vec::new();
    match source {
        dataset::Source::Rows(dataset) => seen.extend(dataset.map(show)),
        dataset::Source::Lines(mut blocks) => loop {
            match blocks.next_block(row_count_max) {
                Ok(Some(block)) => {
                    assert_eq!(block.first_row() + block.row_count(), blocks.row_count());
                    let rows: Seen = block.rows().map(show).collect();
                    assert_eq!(rows.len() as u64, block.row_count());
                    seen.extend(rows);
                }
                Ok(None) => break,
                Err(error) => seen.push(Err(error.to_string())),
            }
        },
    }
    seen
}

#[test]
fn blocks_give_the_rows_of_the_reader_whatever_their_size() {
    let many: String = (0..40_000)
        .map(|row| format!("{{\"id\":\"{row}\",\"text\":\"naïve text of row {row}\",\"other\":[1,2]}}\n"))
        .collect();
    let mark = format!("\u{feff}{JSONL}");
    let ours = concat!(
        r#"{"type":"begin","schema":"flowlens/1","tool":"lm-gen","version":"0.1.0"}"#,
        "\n",
        r#"{"type":"completion","id":"1","text":"x"}"#,
        "\n",
        r#"{"type":"end","row_count":1,"status":"complete"}"#,
        "\n"
    );
    for text in [
        JSONL,
        JSONL.trim_end(),
        &JSONL.replace('\n', "\r\n\r\n  \n"),
        &mark,
        &many,
        ours,
        "\n \n",
    ] {
        for compress in [false, true] {
            let bytes = if compress {
                gzip(text.as_bytes())
            } else {
                text.as_bytes().to_vec()
            };
            let options = Options::new().format(InputFormat::Jsonl).fields(&["id", "text"]);
            let expected: Seen = options
                .read(std::io::Cursor::new(bytes.clone()))
                .unwrap()
                .map(|row| {
                    row.map(|row| (row.index, row.line, row.value))
                        .map_err(|error| error.to_string())
                })
                .collect();
            assert_eq!(in_blocks(&options, &bytes, u64::MAX), expected);
            assert_eq!(in_blocks(&options, &bytes, 7), expected, "seven rows a block");
        }
    }
    assert!(
        in_blocks(&Options::new().format(InputFormat::Jsonl), "", 1)[0]
            .as_ref()
            .unwrap_err()
            .starts_with("empty input")
    );
}

#[test]
fn in_blocks_a_bad_line_is_one_error_and_the_lines_after_it_are_read() {
    let good = r#"{"text":"a"}"#;
    let input = [
        good.as_bytes(),
        b"{\"text\":",
        b"{\"text\":\"\xff\"}",
        b"{\"text\":\"\0\"}",
        br#"{"type":"begin","text":"a"}"#,
        b"[1]",
        &[b'x'; 3000],
        good.as_bytes(),
    ]
    .join(&b'\n');
    let limits = Limits {
        line_bytes: 2000,
        ..Limits::default()
    };
    let seen = in_blocks(
        &Options::new().format(InputFormat::Jsonl).limits(limits),
        &input,
        u64::MAX,
    );
    let messages = [
        "line 2: not JSON",
        "line 3: not UTF-8",
        "line 4: NUL byte",
        "line 5: `begin` record after plain rows",
        "line 6: an array where an object belongs",
        "line 7: longer than 2000 bytes",
    ];
    for (found, words) in seen[1..7].iter().zip(messages) {
        assert!(
            found.as_ref().unwrap_err().starts_with(words),
            "{found:?} is not {words}"
        );
    }
    assert_eq!(seen[7].as_ref().unwrap().0, 7);
    assert_eq!(seen[7].as_ref().unwrap().1, Some(8));
    assert_eq!(seen.len(), 8);
}

#[test]
fn in_blocks_a_line_beyond_the_limit_is_gone_past_and_never_held() {
    // Much longer than a block, and the one after it is found.
    let long = vec![b'x'; 5 << 20];
    let limits = Limits {
        line_bytes: 1 << 20,
        ..Limits::default()
    };
    let input = [&b"{\"text\":\"a\"}\n"[..], &long, b"\n{\"text\":\"b\"}\n"].concat();
    let seen = in_blocks(
        &Options::new().format(InputFormat::Jsonl).limits(limits),
        &input,
        u64::MAX,
    );
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[1], Err("line 2: longer than 1048576 bytes".into()));
    assert_eq!(seen[2].as_ref().unwrap().1, Some(3));
}

#[test]
fn in_blocks_a_cut_stream_gives_its_whole_lines_and_then_the_fault() {
    let text: String = (0..3000)
        .map(|row| format!("{{\"id\":\"{}\"}}\n", row * 7919 % 3001))
        .collect();
    let bytes = gzip(text.as_bytes());
    let seen = in_blocks(
        &Options::new().format(InputFormat::Jsonl),
        &bytes[..bytes.len() / 2],
        u64::MAX,
    );
    let (last, rows) = seen.split_last().unwrap();
    assert!(rows.len() > 10 && rows.iter().all(Result::is_ok));
    assert!(last.as_ref().unwrap_err().contains("cut off"), "{last:?}");
}

#[test]
fn asked_to_a_dataset_goes_on_after_a_row_that_is_bad_by_itself() {
    for (format, input, words) in [
        (
            InputFormat::Csv,
            "id,text\n1,a\n2\n3,c\n".to_owned().into_bytes(),
            "1 fields",
        ),
        (InputFormat::Csv, b"id,text\n1,a\n2,\xff\n3,c\n".to_vec(), "not UTF-8"),
        (
            InputFormat::Json,
            br#"[{"id":"1"}, 2, {"id":"3"}]"#.to_vec(),
            "where an object belongs",
        ),
        (InputFormat::Text, b"a\n\xff\nc\n".to_vec(), "not UTF-8"),
    ] {
        let read = |options: Options| {
            let dataset = options
                .format(format)
                .read(std::io::Cursor::new(input.clone()))
                .unwrap();
            dataset.map(|row| row.map(|row| row.index)).collect::<Vec<_>>()
        };
        let rows = read(Options::new().go_on(true));
        assert_eq!(rows.len(), 3, "{format}");
        assert_eq!((*rows[0].as_ref().unwrap(), *rows[2].as_ref().unwrap()), (0, 2));
        assert!(rows[1].as_ref().unwrap_err().to_string().contains(words));
        assert_eq!(read(Options::new()).len(), 2, "the first error is the end by default");
    }
    // Nothing follows a quote that is not closed.
    let mut cut = Options::new()
        .format(InputFormat::Csv)
        .go_on(true)
        .read(std::io::Cursor::new(b"id,text\n1,\"a\n2,b\n".to_vec()))
        .unwrap();
    assert!(cut.by_ref().last().unwrap().is_err() && cut.is_done());
}
