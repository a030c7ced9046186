//! What holds for any bytes read as records: no panic, one-line messages, bounded work, and rows that survive being written.

use std::path::PathBuf;
use std::sync::OnceLock;

use records::dataset::{Dataset, Example, InputFormat, Options};
use records::{Limits, Prompt, Reader, Result, Row, Writer};
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
}

/// Any bytes as a dataset of a format; compressed ones are told by their first bytes.
pub fn dataset(data: &[u8], format: InputFormat) {
    let options = Options::new().format(format).limits(LIMITS);
    check_rows(options.read(std::io::Cursor::new(data.to_vec())));
}

/// Parquet is read where it lies, or from a pipe by way of a file.
pub fn parquet(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let path = super::write(super::place(&PLACE, &[]), "any.parquet", data);
    check_rows(Options::new().format(InputFormat::Parquet).limits(LIMITS).open(path));
    dataset(data, InputFormat::Parquet);
}

fn check_rows(dataset: Result<Dataset>) {
    match dataset {
        // BOUND: a compressed input may hold many rows.
        Ok(dataset) => dataset.take(1000).for_each(|row| match row {
            Ok(row) => {
                let asked = Prompt::asked(&row, "prompt");
                let refused = [Example::recognise(&row, None).err(), asked.err(), row.id().err()];
                refused.iter().flatten().for_each(check_message);
            }
            Err(error) => check_message(&error),
        }),
        Err(error) => check_message(&error),
    }
}

/// Any bytes as one JSON object: what is accepted, the usual reader accepts with the same value.
pub fn json(data: &[u8]) {
    match ::json::document(data) {
        Err(fault) => super::check_message(&fault),
        Ok(object) => {
            let text = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
            let usual: Value = serde_json::from_slice(text).expect("ours refuses more, never less");
            assert_eq!(Value::Object(object), usual);
        }
    }
}

/// A row that was read can be written, read again and written to the same bytes; and can be asked for any type.
fn check_row(row: &Row) {
    macro_rules! typed {
        ($($record:ident)*) => { $(
            if let Err(error) = row.decode::<records::$record>() {
                check_message(&error);
            }
        )* };
    }
    typed!(Sample Tensor Layer Stack Trajectory Contrast Compare Stability StabilityProfile Act Headline Fit Sparsity Ppl Prompt Completion);
    typed!(Verdict RefusalReport Score SkillReport Candidate Metric Eval Region RegionSummary Slice);
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
