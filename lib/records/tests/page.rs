//! `man/records.5` against the code: every format and every limit stands there.

#[test]
fn the_page_names_every_format_and_limit() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../man/records.5")).unwrap();
    let page = page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "");
    let words: Vec<&str> = page
        .split(|c: char| !(c.is_alphanumeric() || "_,".contains(c)))
        .collect();
    for name in &records::dataset::InputFormat::NAMES {
        assert!(
            words.iter().any(|word| word.split(',').any(|word| word == *name)),
            "`{name}` is not in man/records.5"
        );
    }
    let records::Limits { line_bytes, json } = records::Limits::default();
    let with_commas = |number: usize| match number {
        1_048_576 => "1,048,576".to_owned(),
        65_536 => "65,536".to_owned(),
        1100 => "1,100".to_owned(),
        other => other.to_string(),
    };
    assert!(page.contains(&format!("{} MiB in a line", line_bytes >> 20)));
    for limit in [json.depth, json.key_count, json.value_count, json.number_bytes] {
        assert!(
            words.contains(&with_commas(limit).as_str()),
            "limit {limit} is not in man/records.5"
        );
    }
    assert!(page.contains(records::SCHEMA));
}
