//! acts-check as a process.

use acts::{Dtype, Header, TensorSpec, Writer};
use harness::{Done, Run, temp_dir};
use std::path::Path;

fn check<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> Done {
    Run::new(env!("CARGO_BIN_EXE_acts-check")).args(args).output()
}

fn container() -> Vec<u8> {
    let mut header = Header::new("test", "0", "plan", None);
    header.tensors = vec![
        TensorSpec::new("x", Dtype::F32, &[4]),
        TensorSpec::row_table("token_id"),
    ];
    header.tensors[0].block_row_count = 100;
    header.fix_blocks().unwrap();
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    for row in 0..1000u32 {
        let value = if row == 77 { f32::NAN } else { row as f32 };
        writer.push_f32(0, &[value, 1.0, 2.0, -3.0]).unwrap();
        writer.push_exact(1, &[row]).unwrap();
    }
    writer.finish().unwrap().0
}

fn write(path: &Path, bytes: &[u8]) -> String {
    std::fs::write(path, bytes).unwrap();
    path.display().to_string()
}

#[test]
fn a_sound_container_is_listed_tensor_by_tensor() {
    let directory = temp_dir();
    let path = write(&directory.path().join("x.acts"), &container());
    for depth in [&[][..], &["--full"], &["--sample", "3/7"], &["--full", "--no-map"]] {
        let done = check(depth.iter().copied().chain([path.as_str()])).expect(0);
        let rows = done.records();
        assert_eq!(rows[0]["type"], "begin");
        assert_eq!(
            (&rows[1]["state"], &rows[1]["block_count"]),
            (&"complete".into(), &11.into())
        );
        assert_eq!(
            (&rows[2]["tensor"], &rows[2]["nan_count"], &rows[2]["shape"][0]),
            (&"x".into(), &1.into(), &1000.into())
        );
        assert_eq!(rows.last().unwrap()["status"], "complete");
    }
}

#[test]
fn a_container_on_stdin_is_verified_in_full() {
    let rows = Run::new(env!("CARGO_BIN_EXE_acts-check"))
        .arg("-")
        .stdin(container())
        .output()
        .expect(0)
        .records();
    assert_eq!(rows[1]["blocks_read"], 11);
    let mut bytes = container();
    bytes.truncate(5000);
    Run::new(env!("CARGO_BIN_EXE_acts-check"))
        .arg("-")
        .stdin(bytes)
        .output()
        .refused(3, "stdin: truncated");
}

#[test]
fn a_damaged_block_is_found_by_a_full_check_and_named() {
    let directory = temp_dir();
    let mut bytes = container();
    let at = bytes
        .windows(4)
        .position(|window| window == [0x51, 0x2a, 0x4d, 0x18])
        .unwrap()
        + 100;
    bytes[at] ^= 1;
    let path = write(&directory.path().join("x.acts"), &bytes);
    check([path.as_str()]).expect(0);
    let done = check(["--full", path.as_str()]).refused(3, "block 0");
    let rows = done.records();
    assert_eq!(
        (&rows[1]["type"], &rows[1]["row_count"]),
        (&"damage".into(), &100.into())
    );
    assert!(
        rows.iter().all(|row| row["type"] != "end"),
        "a refused container leaves no end mark"
    );
}

#[test]
fn every_container_is_looked_at_before_the_verdict() {
    let directory = temp_dir();
    let whole = container();
    let bad = write(&directory.path().join("bad.acts"), &whole[..whole.len() - 1]);
    let good = write(&directory.path().join("good.acts"), &whole);
    let done = check([&bad, &good, &bad]).refused(3, "no end mark");
    assert!(done.stderr.contains("2 of 3"), "{}", done.stderr);
    assert!(done.records().iter().any(|row| row["path"] == good.as_str()));
}

#[test]
fn a_missing_file_is_the_environments_and_a_wrong_argument_the_users() {
    check(["/nonexistent/x.acts"]).refused(4, "No such file");
    check(["--sample", "7/7", "x"]).refused(2, "--sample");
    check(["-", "-"]).refused(2, "stdin can be read once");
    check(["/tmp"]).refused(3, "a directory");
}
