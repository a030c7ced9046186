//! How fast each way of reading JSON lines is, on the same bytes in one run: `cargo bench -p records`. Megabytes are 10^6.

use std::hint::black_box;
use std::io::Cursor;
use std::time::Instant;

use records::dataset::{Example, InputFormat, Options};
use records::{Lines, Reader};

#[derive(serde::Deserialize)]
struct Text<'t> {
    #[serde(borrow)]
    text: std::borrow::Cow<'t, str>,
}

fn main() {
    let rows = 120_000;
    let line = |row: usize| {
        let answer =
            "I'm sorry, but I can't help with that. Here is what I can do instead:\\n\\n1. **Listen**. ".repeat(8);
        format!("{{\"id\":\"{row}\",\"source\":\"made\",\"meta\":{{\"a\":[1,2.5,3]}},\"text\":\"{answer}{row}\"}}\n")
    };
    let jsonl: Vec<u8> = (0..rows).flat_map(|row| line(row).into_bytes()).collect();
    let csv: Vec<u8> = std::iter::once("id,text\n".to_owned())
        .chain((0..rows).map(|row| format!("{row},\"{}\"\n", "I'm sorry, but I can't help with that.\n".repeat(16))))
        .flat_map(String::into_bytes)
        .collect();
    let array = [b"[", &jsonl[..jsonl.len() - 1], b"]"].concat();
    let array: Vec<u8> = array
        .into_iter()
        .map(|byte| if byte == b'\n' { b',' } else { byte })
        .collect();

    let dataset = |bytes: &[u8], format, fields: &[&str]| {
        let options = Options::new().format(format);
        let options = if fields.is_empty() {
            options
        } else {
            options.fields(fields)
        };
        options.read(Cursor::new(bytes.to_vec())).unwrap()
    };
    type Case<'c> = (&'c str, &'c [u8], Box<dyn Fn(&[u8]) -> usize + 'c>);
    let cases: Vec<Case> = vec![
        (
            "lines alone",
            &jsonl,
            Box::new(|bytes| {
                let mut lines = Lines::new(bytes);
                let mut total = 0;
                while let Some(line) = lines.next_line().unwrap() {
                    total += line.text.len();
                }
                total
            }),
        ),
        (
            "Line::parse, one borrowed text",
            &jsonl,
            Box::new(|bytes| {
                let mut lines = Lines::new(bytes);
                let mut total = 0;
                while let Some(line) = lines.next_line().unwrap() {
                    total += line.parse::<Text>().unwrap().text.len();
                }
                total
            }),
        ),
        (
            "Reader, all keys, every check",
            &jsonl,
            Box::new(|bytes| Reader::new(bytes).map(|row| row.unwrap().value.len()).sum()),
        ),
        (
            "dataset, jsonl, one field",
            &jsonl,
            Box::new(|bytes| {
                dataset(bytes, InputFormat::Jsonl, &["text"])
                    .map(|row| row.unwrap().value.len())
                    .sum()
            }),
        ),
        (
            "dataset, jsonl, Example",
            &jsonl,
            Box::new(|bytes| {
                dataset(bytes, InputFormat::Jsonl, Example::KEYS)
                    .map(|row| Example::recognise(&row.unwrap(), None).unwrap().prompt().unwrap().len())
                    .sum()
            }),
        ),
        (
            "dataset, json array, one field",
            &array,
            Box::new(|bytes| {
                dataset(bytes, InputFormat::Json, &["text"])
                    .map(|row| row.unwrap().value.len())
                    .sum()
            }),
        ),
        (
            "dataset, csv, one field",
            &csv,
            Box::new(|bytes| {
                dataset(bytes, InputFormat::Csv, &["text"])
                    .map(|row| row.unwrap().value.len())
                    .sum()
            }),
        ),
        (
            "serde_json::Value, unchecked",
            &jsonl,
            Box::new(|bytes| {
                bytes
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty())
                    .map(|line| {
                        serde_json::from_slice::<serde_json::Value>(line).unwrap()["id"]
                            .as_str()
                            .unwrap()
                            .len()
                    })
                    .sum()
            }),
        ),
    ];
    for (name, bytes, scan) in &cases {
        let best = (0..3)
            .map(|_| {
                let start = Instant::now();
                black_box(scan(black_box(bytes)));
                start.elapsed().as_secs_f64()
            })
            .fold(f64::INFINITY, f64::min);
        println!("{name:<34} {:>8.0} MB/s", bytes.len() as f64 / 1e6 / best);
    }
}
