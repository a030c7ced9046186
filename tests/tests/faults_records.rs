//! The J rows of the fault matrix: hostile, damaged and merely unusual record streams. Each test is named after its row.

use std::io::{BufReader, Read};

use records::{Begin, Error, Fault, Limits, Place, Reader, Row, Status, Writer};
use serde_json::json;

const BEGIN: &str = r#"{"type":"begin","schema":"flowlens/1","tool":"t","version":"0"}"#;

fn read(input: impl AsRef<[u8]>) -> Result<Vec<Row>, Error> {
    Reader::new(input.as_ref()).collect()
}

fn end(row_count: usize) -> String {
    format!(r#"{{"type":"end","row_count":{row_count},"status":"complete"}}"#)
}

fn stream(rows: &[&str]) -> String {
    format!(
        "{BEGIN}\n{}{}\n",
        rows.iter().map(|row| format!("{row}\n")).collect::<String>(),
        end(rows.len())
    )
}

#[track_caller]
fn refusal(input: impl AsRef<[u8]>) -> Error {
    let error = read(input).expect_err("must be refused");
    let message = error.to_string();
    assert!(!message.contains('\n') && message.len() < 400, "one line: {message}");
    error
}

#[test]
fn j01_begin_without_end_is_refused_with_its_line() {
    let error = refusal(format!("{BEGIN}\n{{\"type\":\"x\"}}\n"));
    assert!(matches!(error.fault, Fault::EndMissing { .. }), "{error}");
    assert_eq!(error.place, Place::Line(2));
}

#[test]
fn j01_a_second_end_is_refused_with_its_line() {
    let error = refusal(format!("{}{}\n", stream(&[]), end(0)));
    assert!(
        matches!(error.fault, Fault::MarkMisplaced { mark: "end", .. }),
        "{error}"
    );
    assert_eq!(error.place, Place::Line(3));
}

#[test]
fn j01_a_row_after_end_is_refused_with_its_line() {
    let error = refusal(format!("{}{{\"type\":\"x\"}}\n", stream(&[])));
    assert!(matches!(error.fault, Fault::RowAfterEnd), "{error}");
    assert_eq!(error.place, Place::Line(3));
}

#[test]
fn j01_plain_lines_need_neither_mark_and_may_hold_none() {
    assert_eq!(read("{\"a\":1}\n{\"a\":2}\n").unwrap().len(), 2);
    assert!(matches!(
        refusal(format!("{{\"a\":1}}\n{BEGIN}\n")).fault,
        Fault::MarkMisplaced { mark: "begin", .. }
    ));
    assert!(matches!(
        refusal(format!("{{\"a\":1}}\n{}\n", end(1))).fault,
        Fault::MarkMisplaced { mark: "end", .. }
    ));
}

#[test]
fn j02_a_stream_cut_at_any_byte_is_refused() {
    let rows: Vec<String> = (0..48)
        .map(|row| format!(r#"{{"type":"x","id":"{row}","text":"café \u2028 {row}"}}"#))
        .collect();
    let whole = stream(&rows.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(read(&whole).unwrap().len(), 48);
    // The last LF alone carries nothing: the end record before it is whole (J-08).
    for length in 0..whole.len() - 1 {
        assert!(
            read(&whole.as_bytes()[..length]).is_err(),
            "accepted when cut at byte {length} of {}",
            whole.len()
        );
    }
    assert!(read(&whole[..whole.len() - 1]).is_ok());
}

#[test]
fn j03_text_that_is_not_utf8_is_refused_wherever_it_stands() {
    let bad: [&[u8]; 5] = [b"\xFF", b"\xC0\xAF", b"\xED\xA0\x80", b"\xE2\x82", b"\xF5\x80\x80\x80"];
    for bytes in bad {
        let places: [(&[u8], &[u8]); 5] = [
            (b"", b"{\"a\":1}\n"),
            (b"{\"", b"\":1}\n"),
            (b"{\"a\":\"x", b"\"}\n"),
            (b"{\"a\":1}", b"\n"),
            (b"{\"a\":1}\n{\"b\":\"", b"\"}"),
        ];
        for (before, after) in places {
            let error = refusal([before, bytes, after].concat());
            assert!(matches!(error.fault, Fault::NotUtf8 { .. }), "{error}");
        }
    }
}

/// A reader that never ends a line and counts what was taken from it.
struct Endless {
    taken: u64,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(b'y');
        self.taken += buffer.len() as u64;
        Ok(buffer.len())
    }
}

#[test]
fn j04_a_line_without_end_is_refused_just_after_the_limit() {
    let limit = Limits::default().line_bytes;
    let mut endless = Endless { taken: 0 };
    let error = Reader::new(&mut endless).next_row().unwrap_err();
    assert!(
        matches!(error.fault, Fault::LineTooLong { limit: 16_777_216 }),
        "{error}"
    );
    assert!(
        endless.taken > limit as u64 && endless.taken < limit as u64 + (128 << 10),
        "{} bytes taken",
        endless.taken
    );
}

#[test]
fn j04_a_line_of_exactly_the_limit_is_read() {
    let limits = Limits {
        line_bytes: 1000,
        ..Limits::default()
    };
    for (length, is_read) in [(1000, true), (1001, false)] {
        for line_end in ["", "\n", "\r\n"] {
            let line = format!(r#"{{"a":"{}"}}{line_end}"#, "x".repeat(length - 8));
            assert_eq!(
                Reader::with_limits(line.as_bytes(), limits).next_row().is_ok(),
                is_read,
                "{length} {line_end:?}"
            );
        }
    }
}

#[test]
fn j05_depth_key_count_value_count_and_digits_are_bounded() {
    let deep = format!(r#"{{"a":{}}}"#, "[".repeat(1_000_000));
    assert!(matches!(
        refusal(deep).fault,
        Fault::Json(json::Fault::DepthExceeded { limit: 100 })
    ));
    let deep = format!(r#"{{"a":{}}}"#, "{\"a\":".repeat(1_000_000));
    assert!(matches!(
        refusal(deep).fault,
        Fault::Json(json::Fault::DepthExceeded { limit: 100 })
    ));
    let keys: Vec<String> = (0..1_000_000).map(|key| format!(r#""{key}":0"#)).collect();
    assert!(matches!(
        refusal(format!("{{{}}}", keys.join(","))).fault,
        Fault::Json(json::Fault::KeyCountExceeded { limit: 65_536 })
    ));
    let values = format!(r#"{{"a":[{}0]}}"#, "0,".repeat(2_000_000));
    assert!(matches!(
        refusal(values).fault,
        Fault::Json(json::Fault::ValueCountExceeded { limit: 1_048_576 })
    ));
    for digits in [
        format!("1{}", "0".repeat(1_000_000)),
        format!("0.{}1", "0".repeat(1_000_000)),
        "9".repeat(1101),
    ] {
        assert!(matches!(
            refusal(format!(r#"{{"a":{digits}}}"#)).fault,
            Fault::Json(json::Fault::NumberTooLong { limit: 1100 })
        ));
    }
    // Digits in a string are text, however many and whatever is escaped before them.
    assert!(read(format!(r#"{{"a":"\\\"{}"}}"#, "9".repeat(5000))).is_ok());
}

#[test]
fn j06_what_is_no_finite_number_is_refused() {
    for number in ["NaN", "Infinity", "-Infinity", "nan", "inf", "-NaN"] {
        let error = refusal(format!(r#"{{"a":{number}}}"#));
        assert!(
            matches!(error.fault, Fault::Json(json::Fault::NonFinite { .. })),
            "{number}: {error}"
        );
    }
    for number in ["1e400", "-1e400", "1e999999999999"] {
        let error = refusal(format!(r#"{{"a":{number}}}"#));
        assert!(
            matches!(error.fault, Fault::Json(json::Fault::NumberOutOfRange { .. })),
            "{number}: {error}"
        );
    }
    assert!(
        read(r#"{"a":1e-400}"#).is_ok(),
        "an underflow is zero, as IEEE 754 reads it"
    );
}

#[test]
fn j06_null_and_text_are_no_numbers_where_a_number_belongs() {
    for value in ["null", "\"nan\"", "\"1.5\"", "true", "[1]"] {
        let row = &read(format!(r#"{{"step":1,"eval_loss":{value},"token_count":3}}"#)).unwrap()[0];
        let error = row.decode::<records::Eval>().unwrap_err();
        assert!(
            matches!(&error.fault, Fault::KeyMismatch { key, .. } if key.to_string() == "eval_loss"),
            "{error}"
        );
        assert_eq!(error.place, Place::Line(1));
    }
}

#[test]
fn j06_a_number_beyond_f32_is_refused_where_an_f32_belongs() {
    let tensor = |abs_max: &str| {
        format!(
            r#"{{"name":"n","site":"s","path":"p","shape":[1],"dtype":"f32","digest":"d","norm_mean":1,"abs_max":{abs_max},"abs_max_dim":0,"abs_max_sample_index":0,"abs_max_position":0}}"#
        )
    };
    let decode = |abs_max: &str| read(tensor(abs_max)).unwrap()[0].decode::<records::Tensor>();
    assert_eq!(decode("3.4028235e38").unwrap().abs_max, f32::MAX);
    let error = decode("1e39").unwrap_err().to_string();
    assert!(error.contains("abs_max") && error.contains("f32"), "{error}");
}

#[test]
fn j06_minus_zero_stays_minus_zero() {
    for zero in ["-0", "-0.0"] {
        let row = &read(format!(r#"{{"a":{zero}}}"#)).unwrap()[0];
        let value = row.value["a"].as_f64().unwrap();
        assert!(value == 0.0 && value.is_sign_negative());
        assert!(written(&json!({"type": "x", "a": value})).contains(r#""a":-0.0"#));
    }
}

fn written(row: &serde_json::Value) -> String {
    let mut writer = Writer::new(Vec::new());
    writer.row(row).unwrap();
    String::from_utf8(writer.into_output().unwrap()).unwrap()
}

#[test]
fn j07_duplicate_keys_are_refused_at_every_depth() {
    for text in [
        r#"{"a":1,"a":1}"#,
        r#"{"a":{"b":1,"\u0062":2}}"#,
        r#"{"a":[{"b":1,"b":1}]}"#,
    ] {
        assert!(
            matches!(refusal(text).fault, Fault::Json(json::Fault::KeyDuplicate { .. })),
            "{text}"
        );
    }
    assert!(read(r#"{"a":{"b":1},"b":{"b":1}}"#).is_ok());
}

#[test]
fn j07_another_schema_is_refused_and_a_minor_version_is_read() {
    for (schema, is_read) in [
        ("flowlens/1", true),
        ("flowlens/1.7", true),
        ("flowlens/2", false),
        ("flowlens/10", false),
        ("x", false),
    ] {
        let text = stream(&[]).replace("flowlens/1", schema);
        assert_eq!(read(&text).is_ok(), is_read, "{schema}");
    }
    let without = stream(&[]).replace(r#""schema":"flowlens/1","#, "");
    assert!(matches!(refusal(without).fault, Fault::KeyMissing { .. }));
}

#[test]
fn j07_wrong_types_are_refused_and_what_is_unknown_is_kept() {
    for text in ["[1]\n", "1\n", "\"x\"\n", "null\n", "true\n"] {
        assert!(
            matches!(refusal(text).fault, Fault::Json(json::Fault::NotObject { .. })),
            "{text}"
        );
    }
    assert!(matches!(
        refusal(format!("{BEGIN}\n{{\"id\":\"1\"}}\n{}\n", end(1))).fault,
        Fault::KeyMissing { .. }
    ));
    assert!(matches!(
        refusal(format!("{BEGIN}\n{{\"type\":1}}\n{}\n", end(1))).fault,
        Fault::KeyMismatch { .. }
    ));
    let rows = read(stream(&[
        r#"{"type":"prompt","id":"1","prompt":"x","note":[1,null]}"#,
        r#"{"type":"from-tomorrow"}"#,
    ]))
    .unwrap();
    assert_eq!(
        rows[0].decode::<records::Prompt>().unwrap().rest["note"],
        json!([1, null])
    );
    assert!(!rows[1].is::<records::Prompt>(), "an unknown type is for no one");
}

#[test]
fn j08_files_from_windows_and_from_editors_are_read() {
    let expected = read("{\"a\":1}\n{\"a\":\"é\"}\n").unwrap();
    for text in [
        "\u{FEFF}{\"a\":1}\r\n{\"a\":\"é\"}\r\n",
        "{\"a\":1}\n{\"a\":\"é\"}",
        "\n\r\n  \n{\"a\":1}  \n\n\t\n{\"a\":\"é\"}\t \n\n",
        "  {\"a\":1}\r\n{ \"a\" : \"é\" }",
    ] {
        let values = |rows: &[Row]| rows.iter().map(|row| row.value.clone()).collect::<Vec<_>>();
        assert_eq!(values(&read(text).unwrap()), values(&expected), "{text:?}");
    }
    assert_eq!(
        read("\n\n{\"a\":1}\n").unwrap()[0].line,
        3,
        "blank lines count as lines"
    );
}

#[test]
fn j08_nul_is_refused() {
    for text in [&b"{\"a\":\"\0\"}\n"[..], b"\0", b"{\"a\":1}\0\n", b"{\"a\":1}\n\0\n"] {
        assert!(matches!(refusal(text).fault, Fault::NulByte { .. }));
    }
}

#[test]
fn j09_strict_compares_the_row_count() {
    let rows = [r#"{"type":"x"}"#; 3];
    for (declared, is_read) in [(3, true), (2, false), (4, false)] {
        let text = stream(&rows).replace("\"row_count\":3", &format!("\"row_count\":{declared}"));
        let strict: Result<Vec<Row>, Error> = Reader::new(text.as_bytes()).strict(true).collect();
        assert_eq!(strict.is_ok(), is_read, "{declared}");
        assert!(read(&text).is_ok(), "only --strict compares");
    }
}

#[test]
fn j10_streams_one_after_another_are_read_and_each_must_end() {
    let one = stream(&[r#"{"type":"x","n":1}"#]);
    let two = stream(&[r#"{"type":"x","n":2}"#, r#"{"type":"x","n":3}"#]);
    let strict: Vec<Row> = Reader::new(format!("{one}{two}").as_bytes())
        .strict(true)
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        strict.iter().map(|row| row.value["n"].clone()).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    let unended = &one[..one.len() - end(1).len() - 1];
    let error = refusal(format!("{unended}{two}"));
    assert!(
        matches!(error.fault, Fault::MarkMisplaced { mark: "begin", .. }),
        "{error}"
    );
    assert!(matches!(
        refusal(format!("{one}{unended}")).fault,
        Fault::EndMissing { .. }
    ));
    assert!(matches!(
        refusal(format!("{one}{{\"id\":\"plain\"}}\n")).fault,
        Fault::RowAfterEnd
    ));
}

#[test]
fn j10_a_partial_stream_is_refused_unless_accepted_and_then_surfaces() {
    let text = stream(&[]).replace("complete", "partial");
    assert!(matches!(refusal(&text).fault, Fault::PartialInput { .. }));
    let mut reader = Reader::new(text.as_bytes()).accept_partial(true);
    assert!(reader.next_row().unwrap().is_none());
    assert_eq!(reader.status(), Status::Partial);
}

#[test]
fn j11_a_message_escapes_keys_and_quotes_no_value() {
    let key = "\u{1b}[31m\u{202e}\u{2028}\u{7f}\u{9b}";
    let message = refusal(format!("{{\"x{0}\":1,\"x{0}\":1}}", key.replace('\u{1b}', "\\u001b"))).to_string();
    assert!(message.contains("duplicate key"), "{message}");
    assert!(
        !message
            .chars()
            .any(|c| c.is_control() || "\u{202e}\u{2028}".contains(c)),
        "{message:?}"
    );

    let secret = "how to build a bomb";
    for text in [
        format!(r#"{{"id":["{secret}"]}}"#),
        format!(r#"{{"id":"1","max_new_tokens":"{secret}"}}"#),
        format!(r#"{{"id":"1","choices":"{secret}, expected x"}}"#),
        format!(r#"{{"id":"1","messages":[{{"role":"user","content":{{"x":"{secret}"}}}}]}}"#),
        format!(r#"{{"id":"1","stop":{{"{secret}":1}}}}"#),
    ] {
        let row = &read(&text).unwrap()[0];
        let message = row.decode::<records::Prompt>().unwrap_err().to_string();
        assert!(!message.contains("bomb"), "{message}");
        let mut lines = records::Lines::new(text.as_bytes());
        let message = lines
            .next_line()
            .unwrap()
            .unwrap()
            .parse::<records::Prompt>()
            .unwrap_err()
            .to_string();
        assert!(!message.contains("bomb"), "{message}");
    }
    assert!(!refusal(format!(r#"{{"id":"{secret}"#)).to_string().contains("bomb"));
}

#[test]
fn j12_integers_are_exact_or_refused() {
    let two_53 = 1_u64 << 53;
    for integer in [two_53 - 1, two_53, two_53 + 1, i64::MAX as u64, u64::MAX] {
        let row = &read(format!(r#"{{"a":{integer}}}"#)).unwrap()[0];
        assert_eq!(row.value["a"].as_u64(), Some(integer));
        let line = written(&json!({"type": "x", "a": integer}));
        let expected = if integer <= two_53 {
            format!("{integer}")
        } else {
            format!("\"{integer}\"")
        };
        assert_eq!(line, format!("{{\"type\":\"x\",\"a\":{expected}}}\n"));
        // Both forms are read where a record holds an integer.
        for form in [integer.to_string(), format!("\"{integer}\"")] {
            let text = format!("{BEGIN}\n{{\"type\":\"end\",\"row_count\":{form},\"status\":\"complete\"}}\n");
            let mut reader = Reader::new(text.as_bytes());
            assert!(reader.next_row().unwrap().is_none());
            assert_eq!(reader.end().unwrap().row_count, integer);
        }
    }
    assert_eq!(
        read(format!(r#"{{"a":{}}}"#, i64::MIN)).unwrap()[0].value["a"].as_i64(),
        Some(i64::MIN)
    );
    for integer in [
        "18446744073709551616",
        "-9223372036854775809",
        "123456789012345678901234567890",
    ] {
        assert!(
            matches!(
                refusal(format!(r#"{{"a":{integer}}}"#)).fault,
                Fault::Json(json::Fault::NumberOutOfRange { .. })
            ),
            "{integer}"
        );
    }
    assert!(
        read(r#"{"a":1.8446744073709552e19,"b":"123456789012345678901234567890"}"#).is_ok(),
        "floats and strings lose nothing"
    );
}

#[test]
fn an_input_without_a_single_byte_is_refused() {
    assert!(matches!(refusal("").fault, Fault::InputEmpty));
}

#[test]
fn after_an_error_a_reader_ends() {
    let mut reader = Reader::new(&b"{\n{\"a\":1}\n"[..]);
    assert!(reader.next_row().is_err());
    assert!(reader.next_row().unwrap().is_none());
}

/// One byte at a time, with interruptions between.
struct Dribble<'a> {
    bytes: &'a [u8],
    is_interrupted: bool,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.is_interrupted = !self.is_interrupted;
        if self.is_interrupted {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let Some((first, rest)) = self.bytes.split_first() else {
            return Ok(0);
        };
        buffer[0] = *first;
        self.bytes = rest;
        Ok(1)
    }
}

#[test]
fn a_stream_read_a_byte_at_a_time_is_the_same() {
    let text = stream(&[r#"{"type":"x","text":"café"}"#, r#"{"type":"y"}"#]);
    let slow: Vec<Row> = Reader::new(Dribble {
        bytes: text.as_bytes(),
        is_interrupted: false,
    })
    .map(Result::unwrap)
    .collect();
    assert_eq!(slow, read(&text).unwrap());
    let buffered: Vec<Row> = Reader::new(BufReader::with_capacity(3, text.as_bytes()))
        .map(Result::unwrap)
        .collect();
    assert_eq!(slow, buffered);
}

#[test]
fn what_is_written_is_read_and_filters_pass_lines_on_untouched() {
    let mut writer = Writer::new(Vec::new());
    writer
        .begin(
            &Begin::new("t", "0").plan_digest("sha256:00"),
            &json!({"input_digest": "blake3:00"}),
        )
        .unwrap();
    writer
        .row(&json!({"type": "x", "text": "a\nb\u{1b}\u{2028}\""}))
        .unwrap();
    let bytes = writer.end(Status::Partial, &()).unwrap();
    let mut reader = Reader::new(&bytes[..]).strict(true).accept_partial(true);
    let row = reader.next_row().unwrap().unwrap();
    assert_eq!(row.value["text"], "a\nb\u{1b}\u{2028}\"");
    assert_eq!(reader.begin().unwrap().rest["input_digest"], "blake3:00");
    let mut filter = Writer::new(Vec::new());
    filter.row_text(&row).unwrap();
    assert_eq!(
        filter.into_output().unwrap(),
        bytes.split_inclusive(|byte| *byte == b'\n').nth(1).unwrap()
    );
}
