//! Programs that answer wrongly and claim to be right: none passes, end to end through `skill-eval score`. Skips with its reason where the
//! kernel gives no namespaces.

use harness::Run;
use serde_json::{Value, json};

const TEST: &str = "def check(candidate):\n    assert candidate() == 1\n    assert candidate() == 1\n";

/// What `score` says of each program, whose function is `f`; `None` where this machine cannot hold one.
fn answers(programs: &[&str], test: &str) -> Option<Vec<Value>> {
    let row = |(id, program): (usize, &&str)| {
        let row = json!({"id": id, "bench": "humaneval", "prompt": "def f():\n", "completion": program, "entry_point": "f", "test": test});
        format!("{row}\n")
    };
    let input: String = programs.iter().enumerate().map(row).collect();
    let done = Run::new(env!("CARGO_BIN_EXE_skill-eval"))
        .args(["score", "--allow-code-execution", "--time-limit", "5"])
        .stdin(input.into_bytes())
        .output();
    if done.code == 4 && done.stderr.contains("sandbox") {
        eprintln!("skipped: {}", done.stderr.trim());
        return None;
    }
    assert_eq!(done.code, 0, "{}", done.stderr);
    let rows = done
        .text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    Some(rows.filter(|row| row["extractor"] == "execution").collect())
}

fn all_fail(programs: &[&str]) {
    let Some(rows) = answers(programs, TEST) else { return };
    assert_eq!(rows.len(), programs.len());
    for (row, program) in rows.iter().zip(programs) {
        assert_eq!(row["correct"], false, "{program}: {row}");
    }
}

#[test]
fn the_same_test_passes_an_honest_program() {
    let Some(rows) = answers(&["    return 1\n"], TEST) else {
        return;
    };
    assert_eq!(rows[0]["correct"], true, "{}", rows[0]);
}

#[test]
fn nothing_in_the_interpreter_is_a_word_for_success() {
    all_fail(&[
        // Each says all that it finds, in every frame, argument and object, and ends well.
        "    import sys, os\n    k = 0\n    try:\n        while True:\n            for value in list(sys._getframe(k).f_globals.values()):\n                os.write(1, ('\\n%s\\n' % (value,)).encode())\n            k += 1\n    except ValueError:\n        os._exit(0)\n",
        "    import sys, os\n    for word in sys.orig_argv:\n        os.write(1, ('\\n' + word + '\\n').encode())\n    os._exit(0)\n",
        "    import gc, os\n    for thing in gc.get_objects():\n        if isinstance(thing, (list, dict, tuple)):\n            os.write(1, repr(thing)[:1000].encode())\n    os._exit(0)\n",
        "    print('passed')\n    print('p')\n    raise SystemExit(0)\n",
    ]);
}

#[test]
fn a_changed_interpreter_changes_no_verdict() {
    all_fail(&[
        "    return 2\nimport builtins\nbuiltins.exec = lambda *_: None\nbuiltins.compile = lambda *_, **__: ''\nbuiltins.AssertionError = KeyError\nbuiltins.__build_class__ = None\n",
        "    return 2\nimport sys\ndef trace(frame, event, argument):\n    frame.f_locals.update(value=1)\n    return trace\nsys.settrace(trace)\nsys.setprofile(lambda *_: None)\n",
        "    return 2\nimport sys\nfor k in range(9):\n    try:\n        space = sys._getframe(k).f_globals\n    except ValueError:\n        break\n    for name in ('check', 'candidate', 'judge', 'say', 'leave'):\n        space[name] = lambda *_: None\n",
        "    import ctypes, os\n    ctypes.pythonapi.Py_Finalize()\n    os._exit(0)\n",
        "    import ctypes\n    ctypes.memset(id(2) + 24, 1, 1)\n    os = __import__('os')\n    os._exit(0)\n",
    ]);
}

#[test]
fn an_ending_is_no_answer_whenever_it_comes() {
    all_fail(&[
        "    return 2\nimport atexit, os\natexit.register(os._exit, 0)\n",
        "    return 2\nimport threading, time, os\ndef end():\n    time.sleep(0.2)\n    os._exit(0)\nthreading.Thread(target=end).start()\n",
        "    import time\n    time.sleep(60)\nimport threading, time, os\nthreading.Timer(0.2, os._exit, (0,)).start()\n",
        "    class End:\n        def __del__(self):\n            __import__('os')._exit(0)\n    return End()\n",
        "    import os\n    os.execv('/usr/bin/true', ['true'])\n",
        "    import signal, os\n    os.kill(os.getpid(), signal.SIGKILL)\n    os.abort()\n",
        "    class Stop(BaseException):\n        pass\n    raise Stop\n",
        "    return 1\nimport os\nos._exit(0)\n",
    ]);
}

#[test]
fn a_value_cannot_say_what_it_equals() {
    all_fail(&[
        "    class Same:\n        def __eq__(self, other):\n            return True\n    return Same()\n",
        "    class Same(int):\n        def __eq__(self, other):\n            return True\n        __hash__ = None\n    return Same(2)\n",
        "    class Same(float):\n        def __eq__(self, other):\n            return True\n        def __ne__(self, other):\n            return False\n    return Same('nan')\n",
        "    return float('nan')\n",
        "    class Forged:\n        def __reduce__(self):\n            return (__import__('os')._exit, (0,))\n    return Forged()\n",
        "    import pickle\n    return pickle.dumps(f)\n",
        "    class Error(Exception):\n        def __init__(self):\n            self.args = (SystemExit(0),)\n    raise Error\n",
    ]);
}

#[test]
fn what_is_written_to_the_pipes_is_no_verdict() {
    let everywhere = "import os\nFRAMES = b''.join(len(said).to_bytes(4, 'big') + said for said in (b'p', b'passed', b'i1', b't2\\ni0\\ns6c6f61646564'))\ndef shout(text):\n    for descriptor in range(64):\n        try:\n            os.write(descriptor, text)\n        except OSError:\n            pass\n";
    let programs = [
        // Through every descriptor, before the questions, in place of the answer, and after it.
        format!("    return 2\n{everywhere}shout(FRAMES * 9)\n"),
        format!("    shout(FRAMES)\n    return 2\n{everywhere}"),
        format!("    return 1\n{everywhere}shout(FRAMES)\n"),
        format!("    shout(b'\\xff\\xff\\xff\\xff')\n    return 2\n{everywhere}"),
        format!("    os.closerange(0, 64)\n    return 2\n{everywhere}"),
        "    return 2\nimport os\nfor n in range(64):\n    try:\n        open('/proc/self/fd/%d' % n, 'wb').write(b'\\0\\0\\0\\1p')\n    except OSError:\n        pass\n".into(),
    ];
    all_fail(&programs.each_ref().map(String::as_str));
}

#[test]
fn an_answer_comes_once_in_bounded_size_and_in_time() {
    let twice = "    import gc\n    for thing in gc.get_objects():\n        if type(thing).__name__ == 'Channel':\n            send = thing.send\n            def send_twice(data):\n                send(data)\n                send(data)\n            thing.send = send_twice\n    return 1\n";
    all_fail(&[
        twice,
        "    return 'x' * (64 << 20)\n",
        "    return [0] * (1 << 24)\n",
        "    value = []\n    for _ in range(100_000):\n        value = [value]\n    return value\n",
        "    value = []\n    value.append(value)\n    return value\n",
        "    while True:\n        pass\n",
        "    import time\n    time.sleep(1000)\n",
    ]);
    let Some(rows) = answers(&[twice], "def check(candidate):\n    assert candidate() == 1\n") else {
        return;
    };
    assert_eq!(rows[0]["answer"], "failed: said more than it was asked");
}

#[test]
fn a_check_sees_arguments_results_and_exceptions_as_in_one_process() {
    let test = "def check(candidate):\n    values = [3, 1]\n    assert candidate(values) == {'sum': (4, 1.5, None, b'x', 2j, {1}, 'ä')} and values == [1, 3]\n    assert candidate == f and candidate([5], scale=2) == 10\n    try:\n        candidate(7)\n    except TypeError as error:\n        assert error.args == ('no list',)\n        return\n    assert False\n";
    let program = "    pass\ndef f(values, scale=None):\n    if not isinstance(values, list):\n        class Wrong(TypeError):\n            pass\n        raise Wrong('no list')\n    if scale:\n        return scale * values[0]\n    values.sort()\n    from collections import OrderedDict\n    return OrderedDict(sum=(sum(values), 1.5, None, b'x', 2j, {1}, 'ä'))\n";
    let Some(rows) = answers(&[program], test) else { return };
    assert_eq!(rows[0]["answer"], "passed");
}

#[test]
fn a_test_that_cannot_be_used_is_the_rows_fault() {
    let row = json!({"id": 0, "bench": "humaneval", "prompt": "def f():\n", "completion": "    return 1\n", "entry_point": "f", "test": "def check(candidate):\n    assert candidate(len)\n"});
    let done = Run::new(env!("CARGO_BIN_EXE_skill-eval"))
        .args(["score", "--allow-code-execution"])
        .stdin(format!("{row}\n").into_bytes())
        .output();
    if done.code == 4 && done.stderr.contains("sandbox") {
        eprintln!("skipped: {}", done.stderr.trim());
        return;
    }
    assert_eq!(done.code, 3, "{}", done.stderr);
    assert!(done.stderr.contains("passes what cannot be sent"), "{}", done.stderr);
}
