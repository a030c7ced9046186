//! What the writer writes and refuses, and that every shared record survives the way out and back.

use std::collections::BTreeMap;

use proptest::prelude::*;
use records::{
    Begin, Class, Completion, Fault, Finish, Message, Prompt, Reader, Record, RecordPath, Score, Status, Tensor,
    Verdict, Writer,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

fn line(row: &impl Serialize) -> Result<String, records::Error> {
    let mut writer = Writer::new(Vec::new());
    writer.row(row)?;
    Ok(String::from_utf8(writer.into_output()?).unwrap())
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "x")]
struct Numbers {
    single: f32,
    double: f64,
    by_index: BTreeMap<u32, f64>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn numbers() -> Numbers {
    Numbers {
        single: 0.1,
        double: 0.1,
        by_index: BTreeMap::from([(4, 0.5), (10, 1e21)]),
        rest: Map::new(),
    }
}

#[test]
fn numbers_take_the_shortest_form_of_their_own_type_and_keys_their_order() {
    assert_eq!(
        line(&numbers()).unwrap(),
        "{\"type\":\"x\",\"single\":0.1,\"double\":0.1,\"by_index\":{\"4\":0.5,\"10\":1e+21}}\n"
    );
}

#[test]
fn a_number_that_is_not_finite_is_refused_by_key_and_never_null() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = line(&Numbers {
            double: bad,
            ..numbers()
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "row index 0: non-finite number in `double`");
        assert!(
            line(&Numbers {
                single: bad as f32,
                ..numbers()
            })
            .is_err()
        );
        assert!(
            line(&Numbers {
                by_index: BTreeMap::from([(1, bad)]),
                ..numbers()
            })
            .is_err()
        );
    }
}

#[test]
fn a_rest_that_repeats_a_key_of_the_struct_is_refused() {
    let error = line(&Numbers {
        rest: Map::from_iter([("double".to_owned(), json!(1))]),
        ..numbers()
    })
    .unwrap_err();
    assert!(
        matches!(error.fault, Fault::Json(json::Fault::KeyDuplicate { .. })),
        "{error}"
    );
    let many: Map<String, Value> = (0..100)
        .map(|key| (format!("k{key}"), json!(key)))
        .chain([("single".to_owned(), json!(1))])
        .collect();
    assert!(
        line(&Numbers {
            rest: many,
            ..numbers()
        })
        .is_err()
    );
}

#[test]
fn a_row_beyond_the_line_limit_is_refused() {
    let error = line(&json!({"type": "x", "text": "x".repeat(16 << 20)})).unwrap_err();
    assert!(matches!(error.fault, Fault::LineTooLong { .. }), "{error}");
}

#[test]
fn a_full_disk_is_an_error_with_its_system_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut writer = Writer::new(full);
    let error = writer.begin(&Begin::new("t", "0"), &()).unwrap_err();
    assert!(
        matches!(&error.fault, Fault::Io(source) if source.raw_os_error().is_some()),
        "{error}"
    );
}

fn round_trip<T: Record + PartialEq + std::fmt::Debug>(record: &T) {
    let text = line(record).unwrap();
    assert!(text.starts_with(&format!("{{\"type\":\"{}\"", T::TYPE)), "{text}");
    let row = Reader::new(text.as_bytes()).next_row().unwrap().unwrap();
    assert_eq!(row.kind.as_deref(), Some(T::TYPE));
    assert!(records::TYPES.contains(&T::TYPE));
    assert_eq!(&row.decode::<T>().unwrap(), record);
    assert_eq!(line(&row.decode::<T>().unwrap()).unwrap(), text, "bytes are stable");
}

fn prompt() -> Prompt {
    Prompt {
        id: "1".into(),
        bench: Some("xstest".into()),
        messages: Some(vec![Message::new("user", "hi")]),
        stop: Some(vec!["\n".into()]),
        max_new_tokens: Some(64),
        reference: Some(json!("18")),
        rest: Map::from_iter([("note".to_owned(), json!({"a": [1, null]}))]),
        ..Prompt::default()
    }
}

#[test]
fn shared_records_survive_the_way_out_and_back() {
    use std::os::unix::ffi::OsStringExt;
    round_trip(&prompt());
    round_trip(&Completion {
        prompt: prompt(),
        text_digest: Some(records::text_digest("hi")),
        completion: Some("a".into()),
        finish: Some(Finish::Length),
        choice_log_prob: Some(vec![-0.1, -1e-300]),
        ..Completion::default()
    });
    let verdict = json!({"id": 5, "judge": "prefix", "verdict": "partial", "evidence": "I'm sorry"});
    let row = Reader::new(verdict.to_string().as_bytes()).next_row().unwrap().unwrap();
    let verdict: Verdict = row.decode().unwrap();
    assert_eq!(
        (verdict.id.as_str(), verdict.verdict, verdict.bench.as_str()),
        ("5", Class::Partial, "")
    );
    round_trip(&verdict);
    round_trip(&Score {
        id: "1".into(),
        extractor: "strict".into(),
        read: true,
        correct: Some(false),
        span: Some([3, 5]),
        ..Score::default()
    });
    round_trip(&records::Sample {
        id: "x".into(),
        row_start: (1 << 53) + 1,
        ..records::Sample::default()
    });
    for path in ["plain".into(), std::ffi::OsString::from_vec(b"\xff\xfe".to_vec())] {
        round_trip(&Tensor {
            name: "resid_post.3".into(),
            site: "resid_post".into(),
            layer_index: Some(3),
            path: RecordPath(path.into()),
            shape: vec![7, 64],
            dtype: "bf16".into(),
            digest: "blake3:00".into(),
            norm_mean: 1.5,
            abs_max: 0.1,
            abs_max_dim: 1,
            abs_max_sample_index: 2,
            abs_max_position: 3,
            rest: Map::new(),
        });
    }
}

#[test]
fn a_prompt_without_id_takes_its_place_in_the_input() {
    let mut rows = records::dataset::Options::new()
        .read("{\"prompt\":\"a\"}\n{\"prompt\":\"b\",\"id\":7,\"stop\":\"x\"}\n".as_bytes())
        .unwrap();
    let mut next = || rows.next().unwrap().unwrap().decode::<Prompt>().unwrap();
    assert_eq!(next().id, "#0");
    let second = next();
    assert_eq!((second.id.as_str(), second.stop), ("7", Some(vec!["x".into()])));
}

#[test]
fn a_foreign_type_key_is_no_record_type_in_a_plain_stream() {
    let xstest = br#"{"id":"1","type":"homonyms","prompt":"How do I kill a process?"}"#;
    let row = Reader::new(&xstest[..]).next_row().unwrap().unwrap();
    assert!(row.kind.is_none() && row.is::<Prompt>());
    assert!(
        row.decode::<Prompt>().unwrap().rest.is_empty(),
        "`type` is the tag, not an unknown key"
    );
    let other = Reader::new(&br#"{"id":"1","type":"verdict","judge":"x","verdict":"refusal"}"#[..])
        .next_record::<Prompt>()
        .unwrap();
    assert!(other.is_none(), "a verdict is not a prompt");
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53)..=(1 << 53)).prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_rows_written_are_read_back_equal(values in prop::collection::vec(json_value(), 0..6), is_partial: bool) {
        let status = if is_partial { Status::Partial } else { Status::Complete };
        let mut writer = Writer::new(Vec::new());
        writer.begin(&Begin::new("t", "0"), &()).unwrap();
        for value in &values {
            writer.row(&json!({"type": "x", "value": value})).unwrap();
        }
        let bytes = writer.end(status, &()).unwrap();
        let mut reader = Reader::new(&bytes[..]).strict(true).accept_partial(true);
        for value in &values {
            let row = reader.next_row().unwrap().unwrap();
            prop_assert_eq!(&row.value["value"], value);
            // The bytes too: what is read and written again is the same line.
            let mut text = line(&Value::Object(row.value.clone())).unwrap();
            text.pop();
            prop_assert_eq!(text, row.text);
        }
        prop_assert!(reader.next_row().unwrap().is_none());
        prop_assert_eq!(reader.status(), status);
    }

    #[test]
    fn any_float_survives(double in any::<f64>(), single in any::<f32>()) {
        prop_assume!(double.is_finite() && single.is_finite());
        let text = line(&Numbers { single, double, by_index: BTreeMap::new(), rest: Map::new() }).unwrap();
        let value = Reader::new(text.as_bytes()).next_row().unwrap().unwrap().value;
        prop_assert_eq!(value["double"].as_f64().unwrap().to_bits(), double.to_bits());
        prop_assert_eq!((value["single"].as_f64().unwrap() as f32).to_bits(), single.to_bits());
    }

    #[test]
    fn bytes_inserted_anywhere_are_refused_or_read_but_never_a_panic(at in 0_usize..400, bytes in prop::collection::vec(any::<u8>(), 1..8)) {
        let mut writer = Writer::new(Vec::new());
        writer.begin(&Begin::new("t", "0"), &()).unwrap();
        writer.row(&json!({"type": "x", "text": "some text", "list": [1, 2.5, {"a": null}]})).unwrap();
        let mut stream = writer.end(Status::Complete, &()).unwrap();
        let at = at % stream.len();
        stream.splice(at..at, bytes);
        for row in Reader::new(&stream[..]) {
            if let Err(error) = row {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }
}
