//! What holds for any bytes read as records: no panic, one-line messages, bounded work, and rows that survive being written.

use records::dataset::{Example, InputFormat, Options};
use records::{Completion, Limits, Prompt, Reader, Row, Verdict, Writer};
use serde_json::Value;

/// Small, so that a fuzzer reaches the bounds.
const LIMITS: Limits = Limits {
    line_bytes: 4096,
    json: json::Limits {
        depth: 20,
        key_count: 64,
        value_count: 256,
        number_bytes: 40,
        exact_integers: true,
    },
};

pub fn check(data: &[u8]) {
    let mut first_rows = Vec::new();
    for row in Reader::with_limits(data, LIMITS).accept_partial(true) {
        match row {
            Ok(row) => {
                check_row(&row);
                first_rows.push(row);
            }
            Err(error) => check_message(&error),
        }
    }
    // The reads of the input may fall anywhere.
    let by_bytes: Vec<Row> = Reader::with_limits(OneByte(data), LIMITS)
        .accept_partial(true)
        .filter_map(Result::ok)
        .collect();
    assert_eq!(by_bytes, first_rows, "the split of reads shows");

    let formats = [
        InputFormat::Auto,
        InputFormat::Jsonl,
        InputFormat::Json,
        InputFormat::Csv,
        InputFormat::Tsv,
        InputFormat::Text,
    ];
    for format in formats {
        match Options::new()
            .format(format)
            .limits(LIMITS)
            .read(std::io::Cursor::new(data.to_vec()))
        {
            // BOUND: a compressed input may hold many rows.
            Ok(dataset) => dataset.take(1000).for_each(|row| match row {
                Ok(row) => {
                    if let Err(error) = Example::recognise(&row, None) {
                        check_message(&error);
                    }
                }
                Err(error) => check_message(&error),
            }),
            Err(error) => check_message(&error),
        }
    }
}

/// A row that was read can be written, read again and written to the same bytes; and can be asked for any type.
fn check_row(row: &Row) {
    for error in [
        row.decode::<Prompt>().err(),
        row.decode::<Completion>().err(),
        row.decode::<Verdict>().err(),
    ]
    .into_iter()
    .flatten()
    {
        check_message(&error);
    }
    let mut value = serde_json::Map::from_iter([("type".to_owned(), Value::from("x"))]);
    value.extend(row.value.clone().into_iter().filter(|(key, _)| key != "type"));
    let once = write(&Value::Object(value));
    let again = Reader::new(once.as_slice())
        .next_row()
        .expect("what is written is read")
        .expect("one row");
    assert_eq!(write(&Value::Object(again.value)), once);
}

fn write(value: &Value) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.row(value).expect("what was read can be written");
    writer.into_output().expect("a vector takes everything")
}

fn check_message(error: &records::Error) {
    let message = error.to_string();
    assert!(!message.chars().any(char::is_control), "{message:?}");
    assert!(message.len() < 2000, "{message}");
}

struct OneByte<'d>(&'d [u8]);

impl std::io::Read for OneByte<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.0.len().min(1);
        std::io::Read::read(&mut self.0, &mut buffer[..length])
    }
}
