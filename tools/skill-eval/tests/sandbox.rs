//! Programs of a model: what they may not do, and that honest ones pass. Skips with its reason where the kernel gives no namespaces.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::Run;
use serde_json::{Value, json};

/// Scores one program, `None` where this machine cannot hold it.
fn run_all(bodies: &[&str], args: &[&str]) -> Option<Vec<Value>> {
    let input: String = bodies
        .iter()
        .enumerate()
        .map(|(id, body)| {
            let row = json!({"id": id, "bench": "humaneval", "prompt": "def f():\n", "completion": body, "entry_point": "f", "test": "def check(candidate):\n    assert candidate() == 1\n"});
            format!("{row}\n")
        })
        .collect();
    let done = Run::new(env!("CARGO_BIN_EXE_skill-eval"))
        .args(["score", "--allow-code-execution"])
        .args(args)
        .stdin(input.into_bytes())
        .output();
    if done.code == 4 && done.stderr.contains("sandbox") {
        harness::skip("sandbox", done.stderr.trim());
        return None;
    }
    assert_eq!(done.code, 0, "{}", done.stderr);
    let rows = String::from_utf8(done.stdout).unwrap();
    Some(
        rows.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|row| row["extractor"] == "execution")
            .collect(),
    )
}

fn run(body: &str, args: &[&str]) -> Option<Value> {
    run_all(&[body], args).map(|mut rows| rows.remove(0))
}

#[test]
fn a_right_program_passes_and_a_wrong_one_fails_with_its_reason() {
    let Some(rows) = run_all(
        &[
            "    return 1\n",
            "    return 2\n",
            "    return (\n",
            "    raise ValueError('no')\n",
        ],
        &[],
    ) else {
        return;
    };
    assert_eq!(
        rows.iter()
            .map(|row| row["correct"].as_bool().unwrap())
            .collect::<Vec<_>>(),
        [true, false, false, false]
    );
    assert!(rows[1]["answer"].as_str().unwrap().contains("AssertionError"));
    assert_eq!(rows[3]["answer"], "failed: ValueError: no");
}

#[test]
fn an_early_exit_is_no_pass() {
    let bodies = [
        "    import os; os._exit(0)\n",
        "    import sys; sys.exit(0)\n",
        "    return 1\nimport sys; sys.exit(0)\n",
        "    print('passed'); raise SystemExit\n",
    ];
    let Some(rows) = run_all(&bodies, &[]) else { return };
    for row in rows {
        assert_eq!(row["correct"], false, "{row}");
    }
}

#[test]
fn there_is_no_network() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let body = format!(
        "    import socket\n    try:\n        socket.create_connection(('127.0.0.1', {port}), timeout=2)\n    except OSError as error:\n        raise SystemExit('blocked %d' % error.errno)\n    return 1\n"
    );
    let Some(row) = run(&body, &[]) else { return };
    assert_eq!(row["answer"], "failed: blocked 1", "EPERM: not even a socket");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody came");
}

#[test]
fn a_fork_bomb_cannot_fork_and_cannot_start_another_program() {
    let bodies = [
        "    import os\n    while True:\n        os.fork()\n",
        "    import subprocess\n    subprocess.run(['/bin/sh', '-c', ':(){ :|:& };:'])\n    return 1\n",
        "    import multiprocessing\n    multiprocessing.Process(target=f).start()\n    return 1\n",
    ];
    let Some(rows) = run_all(&bodies, &[]) else { return };
    for row in rows {
        assert_eq!(row["correct"], false);
        assert!(
            row["answer"].as_str().unwrap().contains("Operation not permitted"),
            "{row}"
        );
    }
}

#[test]
fn a_thread_bomb_ends() {
    let body = "    import threading, time\n    while True:\n        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n";
    let Some(row) = run(body, &["--time-limit", "5"]) else {
        return;
    };
    assert_eq!(row["correct"], false, "{row}");
}

#[test]
fn the_disk_is_small_and_the_memory_too() {
    let bodies = [
        "    with open('big', 'wb') as out:\n        for _ in range(10_000):\n            out.write(bytes(1 << 20))\n    return 1\n",
        "    for n in range(1000):\n        with open('big%d' % n, 'wb') as out:\n            out.write(bytes(8 << 20))\n    return 1\n",
        "    x = bytearray(3 << 30)\n    return 1\n",
        "    x = []\n    while True:\n        x.append('x' * (1 << 20))\n",
        "    for n in range(100_000):\n        open('f%d' % n, 'w').close()\n    return 1\n",
    ];
    let Some(rows) = run_all(&bodies, &["--memory-limit", "256M", "--time-limit", "20"]) else {
        return;
    };
    let said: Vec<&str> = rows.iter().map(|row| row["answer"].as_str().unwrap()).collect();
    assert!(rows.iter().all(|row| row["correct"] == false), "{said:?}");
    assert!(
        said[0].contains("File too large") || said[0].contains("signal"),
        "{said:?}"
    );
    assert!(said[1].contains("No space left"), "{said:?}");
    assert!(
        said[2].contains("MemoryError") && said[3].contains("MemoryError"),
        "{said:?}"
    );
    assert!(said[4].contains("No space left"), "{said:?}");
}

#[test]
fn a_program_that_hangs_is_stopped_in_time_whatever_it_ignores() {
    let start = Instant::now();
    let bodies = [
        "    while True:\n        pass\n",
        "    import signal, time\n    for n in range(1, 65):\n        try:\n            signal.signal(n, signal.SIG_IGN)\n        except Exception:\n            pass\n    while True:\n        time.sleep(1000)\n",
        "    import sys\n    while True:\n        sys.stdout.write('x' * 65536)\n        sys.stderr.write('y' * 65536)\n",
    ];
    let Some(rows) = run_all(&bodies, &["--time-limit", "2"]) else {
        return;
    };
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    for row in rows {
        assert_eq!(row["answer"], "timed out");
    }
}

#[test]
fn nothing_of_the_host_is_seen_or_changed() {
    let directory = harness::temp_dir();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let secret = secret.display().to_string();
    let bodies = [
        format!("    return len(open({secret:?}).read()) and 1\n"),
        format!("    open({secret:?}, 'w').write('x')\n    return 1\n"),
        "    return len(open('/etc/passwd').read()) and 1\n".to_owned(),
        "    open('/usr/x', 'w')\n    return 1\n".to_owned(),
        "    open('/x', 'w')\n    return 1\n".to_owned(),
        "    import os\n    os.listdir('/proc')\n    os.kill(os.getppid() or 1000, 9)\n    return 1\n".to_owned(),
        "    import os\n    os.chroot('/usr')\n    return 1\n".to_owned(),
        "    import ctypes\n    if ctypes.CDLL(None).mount(b'none', b'/work', b'tmpfs', 0, None) != 0:\n        raise OSError('refused')\n    return 1\n".to_owned(),
    ];
    let Some(rows) = run_all(&bodies.iter().map(String::as_str).collect::<Vec<_>>(), &[]) else {
        return;
    };
    for row in &rows {
        assert_eq!(row["correct"], false, "{row}");
    }
    assert_eq!(
        std::fs::read_to_string(directory.path().join("secret")).unwrap(),
        "secret"
    );
    // What it may do: use its own empty directory, and the library of its interpreter.
    let honest = "    import os, math, json, re, typing, collections, hashlib\n    assert os.getcwd() == '/work' and os.listdir('.') == []\n    open('mine', 'w').write('x')\n    return len(open('mine').read())\n";
    assert_eq!(run(honest, &[]).unwrap()["correct"], true);
}

/// A table of one program, for tests that start the tool themselves.
fn table(directory: &Path, body: &str) -> PathBuf {
    let row = json!({"id": 0, "bench": "humaneval", "prompt": "def f():\n", "completion": body, "entry_point": "f", "test": "def check(candidate):\n    assert candidate() == 1\n"});
    let path = directory.join("completions.jsonl");
    std::fs::write(&path, format!("{row}\n")).unwrap();
    path
}

#[test]
fn a_program_cannot_kill_the_group_of_the_user() {
    let directory = harness::temp_dir();
    let body = "    import os\n    for target in (os.getppid(), 0, -1):\n        try:\n            os.kill(target, 9)\n        except OSError:\n            pass\n    return 1\n";
    // In a group of its own, for it is the group that dies where the sandbox leaks.
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_skill-eval"))
        .args(["score", "--allow-code-execution"])
        .arg(table(directory.path(), body))
        .process_group(0)
        .output()
        .unwrap();
    if done.status.code() == Some(4) {
        eprintln!("skipped: {}", String::from_utf8_lossy(&done.stderr));
        return;
    }
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.contains("\"type\":\"end\""), "{said}");
}

#[test]
fn open_files_of_the_caller_do_not_reach_a_program() {
    let directory = harness::temp_dir();
    let open = directory.path().join("open");
    std::fs::create_dir(&open).unwrap();
    let body = "    import os\n    for n in range(3, 64):\n        try:\n            os.close(os.open('written', os.O_CREAT | os.O_WRONLY, dir_fd=n))\n        except OSError:\n            pass\n    try:\n        os.fstat(9)\n    except OSError:\n        return 1\n";
    let done = Run::new("/bin/sh")
        .args(["-c", "exec \"$@\" 9<\"$OPEN\"", "sh", env!("CARGO_BIN_EXE_skill-eval")])
        .args(["score", "--allow-code-execution"])
        .arg(table(directory.path(), body))
        .env("OPEN", &open)
        .output();
    if done.code == 4 {
        eprintln!("skipped: {}", done.stderr.trim());
        return;
    }
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.text().contains("\"answer\":\"passed\""), "{}", done.text());
    assert_eq!(std::fs::read_dir(&open).unwrap().count(), 0);
}

#[test]
fn a_killed_run_leaves_nothing_in_the_temporary_directory() {
    let (directory, temporary) = (harness::temp_dir(), harness::temp_dir());
    let mut child = Run::new(env!("CARGO_BIN_EXE_skill-eval"))
        .args(["score", "--allow-code-execution", "--time-limit", "60"])
        .arg(table(directory.path(), "    while True:\n        pass\n"))
        .env("TMPDIR", temporary.path())
        .spawn();
    std::thread::sleep(Duration::from_secs(2));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn an_answer_in_a_code_block_is_read_by_the_extractor_for_blocks() {
    let input = json!({"id": 0, "bench": "humaneval", "prompt": "import math\n\ndef f():\n    \"\"\"one\"\"\"\n", "completion": "Here you are:\n```python\ndef f():\n    return math.floor(1.5)\n```\nDone.", "entry_point": "f", "test": "def check(candidate):\n    assert candidate() == 1\n"});
    let done = Run::new(env!("CARGO_BIN_EXE_skill-eval"))
        .args(["score", "--allow-code-execution"])
        .stdin(format!("{input}\n").into_bytes())
        .output();
    if done.code == 4 {
        return harness::skip("sandbox", done.stderr.trim());
    }
    let rows: Vec<Value> = String::from_utf8(done.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let correct = |name: &str| rows.iter().find(|row| row["extractor"] == name).unwrap()["correct"].clone();
    assert_eq!((correct("execution"), correct("block")), (json!(false), json!(true)));
}

#[test]
fn the_canonical_solutions_of_humaneval_pass_all() {
    let Some(path) = harness::data("human-eval/HumanEval.jsonl.gz") else {
        return;
    };
    let prompts = Run::new(env!("CARGO_BIN_EXE_skill-eval"))
        .args(["prompts", "--bench", "humaneval"])
        .arg(path)
        .output();
    assert_eq!(prompts.code, 0, "{}", prompts.stderr);
    let answered: String = String::from_utf8(prompts.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|row| row["type"] == "prompt")
        .map(|mut row| {
            row["completion"] = row["reference"].clone();
            row["type"] = json!("completion");
            format!("{row}\n")
        })
        .collect();
    let done = Run::new(env!("CARGO_BIN_EXE_skill-eval"))
        .args(["score", "--allow-code-execution", "--time-limit", "60"])
        .stdin(answered.into_bytes())
        .output();
    if done.code == 4 && done.stderr.contains("sandbox") {
        return harness::skip("sandbox", done.stderr.trim());
    }
    assert_eq!(done.code, 0, "{}", done.stderr);
    let rows: Vec<Value> = String::from_utf8(done.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let failed: Vec<&Value> = rows
        .iter()
        .filter(|row| row["extractor"] == "execution" && row["correct"] != true)
        .collect();
    assert_eq!(rows.iter().filter(|row| row["extractor"] == "execution").count(), 164);
    assert!(failed.is_empty(), "{failed:?}");
}
