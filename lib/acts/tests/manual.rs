//! `man/acts.5` and the code say the same: byte offsets and limits.

use acts::limits;

fn root(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The page with tbl's text blocks joined and roff's escapes undone.
fn manual() -> String {
    let text = root("man/acts.5").replace("T{\n", "").replace("\nT}", "");
    [("\\-", "-"), ("\\(ga", "`"), ("\\(pc", "·"), ("\\e", "\\")]
        .iter()
        .fold(text, |text, (roff, plain)| text.replace(roff, plain))
}

#[test]
fn every_byte_offset_is_in_the_manual() {
    let manual = manual();
    let source = root("lib/acts/src/frame.rs");
    let rows = source.lines().filter_map(|line| line.strip_prefix("//! | "));
    let mut count = 0;
    for row in rows.filter(|row| row.starts_with(|first: char| first.is_ascii_digit())) {
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        let line = cells.join("\t");
        assert!(
            manual.lines().any(|found| found == line),
            "man/acts.5 has no row {line:?}"
        );
        count += 1;
    }
    assert_eq!(count, 29);
}

#[test]
fn every_limit_is_in_the_manual() {
    let manual = manual();
    let power = |value: u64| format!("2^{}", value.trailing_zeros());
    for (what, limit) in [
        ("header text", format!("{} bytes", limits::HEADER_JSON_BYTES)),
        ("nesting of the header", limits::HEADER_DEPTH.to_string()),
        ("JSON values in the header", limits::HEADER_VALUES.to_string()),
        ("tensors", limits::TENSORS.to_string()),
        ("name", format!("{} bytes", limits::NAME_BYTES)),
        ("axes, rows included", limits::RANK.to_string()),
        ("extent of an axis", power(limits::DIMENSION)),
        ("elements of a tensor", power(limits::ELEMENTS)),
        ("raw bytes of a tensor", power(limits::RAW_BYTES)),
        ("raw bytes of a block and of a row", limits::BLOCK_RAW_BYTES.to_string()),
        ("blocks", limits::BLOCKS.to_string()),
        ("zstd window", format!("{} bytes", limits::ZSTD_WINDOW_BYTES)),
    ] {
        let line = format!("{what}\t{limit}");
        assert!(
            manual.lines().any(|found| found == line),
            "man/acts.5 has no row {line:?}"
        );
    }
}

#[test]
fn every_site_dtype_and_codec_is_in_the_manual() {
    let manual = manual();
    let names = acts::Site::ALL.iter().map(|site| site.name());
    let names = names
        .chain(acts::Dtype::ALL.iter().map(|dtype| dtype.name()))
        .chain(acts::Codec::ALL.iter().map(|codec| codec.name()));
    for name in names {
        assert!(manual.contains(name), "{name}");
    }
}
