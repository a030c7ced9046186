//! resid-plot as a process: what it draws, and what it refuses.

use harness::Run;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn plot() -> Run {
    Run::new(env!("CARGO_BIN_EXE_resid-plot"))
}

fn stream(directory: &Path, name: &str, rows: &[Value]) -> String {
    let mut text = json!({"type": "begin", "schema": "flowlens/1", "tool": "test", "version": "0"}).to_string() + "\n";
    for row in rows {
        text += &(row.to_string() + "\n");
    }
    text += &(json!({"type": "end", "row_count": rows.len(), "status": "complete"}).to_string() + "\n");
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_string()
}

fn trajectory(group: &str) -> Value {
    json!({"type": "trajectory", "group": group, "component": "1", "basis": "own", "layer_index": [0, 1], "depth": [0.5, 1.0],
           "projection": [0.0, 1.5], "low": [-0.1, 1.0], "high": [0.1, 2.0], "center3": [[0.0, 1.0, 2.0], [1.0, 2.0, 4.0]],
           "smoothness_ratio": 0.1, "turning_angle": 0.2})
}

fn layer(index: usize, c_1: f64) -> Value {
    json!({"type": "layer", "layer_index": index, "layer_count": 2, "depth": (index as f64 + 1.0) / 2.0, "site": "resid_post", "group": "",
           "layout": "stacked", "center": "global", "row_count": 9, "eigenvalues": [2.0], "evr": [c_1, 0.1, 0.05],
           "c_k": {"1": c_1, "2": c_1 + 0.1}, "norm_mean": 3.5})
}

fn candidate(layer: usize, refusal: f64, chosen: bool) -> Value {
    json!({"type": "candidate", "method": "select", "site": "resid_pre", "layer_index": layer, "position": -1, "norm": 2.0, "kl": 0.01,
           "refusal_harmful": refusal, "induced_harmless": 1.0, "chosen": chosen})
}

fn every_record() -> Vec<Value> {
    let region = |id: &str, curve: [f64; 3]| {
        json!({"type": "region", "id": id, "id_a": "a", "id_b": "b", "group": "", "model_digest": "blake3:0", "layer_index": 0,
               "read": "pre-norm", "read_layer_index": 1, "path_kind": "linear", "distance": "l2", "alpha": [0.0, 0.5, 1.0], "curve": curve,
               "max_slope": 1.8, "max_slope_alpha": 0.7, "end_distance": 3.0, "delta_norm": 2.0, "token_id_a": 1, "token_id_b": 2})
    };
    let field = json!([[0.0, 0.5], [0.7, 1.0]]);
    vec![
        trajectory("general"),
        trajectory("safety"),
        layer(0, 0.4),
        layer(1, 0.6),
        json!({"type": "stack", "site": "resid_post", "group": "", "layout": "stacked", "center": "global", "row_count": 9, "eigenvalues": [2.0],
               "evr": [0.5, 0.2, 0.1], "c_k": {"1": 0.5}}),
        json!({"type": "metric", "step": 1, "loss": 3.0, "aux": {"vcl": {"c_k": 0.2}}}),
        json!({"type": "metric", "step": 2, "loss": 2.0, "aux": {"vcl": {"c_k": 0.3}}}),
        json!({"type": "eval", "step": 2, "eval_loss": 2.5}),
        json!({"type": "refusal_report", "bench": "xstest", "judge": "flowlens", "kind": "homonyms", "label": "safe",
               "count": 20, "compliance_count": 16, "partial_count": 0, "refusal_count": 4, "unscored_count": 0,
               "refusal_rate_full": 0.2, "refusal_rate_full_low": 0.1, "refusal_rate_full_high": 0.4, "refusal_rate_any": 0.2, "refusal_rate_any_low": 0.1, "refusal_rate_any_high": 0.4}),
        json!({"type": "skill_report", "bench": "mmlu", "task": "", "subject": "", "extractor": "first", "count": 10, "correct_count": 3,
               "unread_count": 0, "unread_share": 0.0, "accuracy_all": 0.3, "accuracy": 0.3, "accuracy_low": 0.2, "accuracy_high": 0.4}),
        region("1", [0.0, 0.1, 1.0]),
        region("2", [0.0, 0.9, 1.0]),
        region("3", [0.0, 0.5, 1.0]),
        json!({"type": "region", "id": "4", "id_a": "a", "id_b": "b", "model_digest": "blake3:0", "layer_index": 0, "read": "pre-norm",
               "read_layer_index": 1, "path_kind": "linear", "distance": "l2", "skipped": "A equals B"}),
        json!({"type": "slice", "id": "s", "model_digest": "blake3:0", "layer_index": 0, "read": "pre-norm", "read_layer_index": 1,
               "max_a": 1.0, "max_b": 1.0, "max_c": 1.0, "alpha": [0.0, 1.0], "beta": [0.0, 1.0], "c_alpha": 0.5, "field_a": field, "field_b": field, "field_c": field}),
        candidate(0, -0.5, false),
        candidate(1, -3.0, true),
        sparsity(0, 0.5, 0.2),
        sparsity(1, 0.5, 0.4),
        sparsity(0, 0.7, 0.5),
        ppl(0.5, 21.0),
        json!({"type": "something_new", "value": 1}),
    ]
}

fn sparsity(layer: usize, share: f64, error: f64) -> Value {
    json!({"type": "sparsity", "site": "mlp_in", "layer_index": layer, "matrix": "mlp_out", "criterion": "teal", "level_kind": "sparsity",
        "level": share, "row_count": 9, "sparsity": share, "threshold": 0.1, "rel_error": error})
}

fn ppl(share: f64, perplexity: f64) -> Value {
    json!({"type": "ppl", "sites": ["mlp_in"], "criterion": "wina", "level_kind": "sparsity", "level": share, "sparsity": share,
        "perplexity": perplexity, "perplexity_dense": 20.0})
}

#[test]
fn a_page_holds_every_figure_that_the_records_support() {
    let directory = harness::temp_dir();
    let input = stream(directory.path(), "all.jsonl", &every_record());
    let page = directory.path().join("page.html");
    let done = plot()
        .args([&input, "-o", page.to_str().unwrap(), "--title", "A <report>"])
        .output()
        .expect(0);
    let kinds: Vec<String> = done
        .records()
        .iter()
        .filter(|row| row["type"] == "figure")
        .map(|row| row["figure"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(
        kinds,
        [
            "trajectory",
            "projection",
            "spectrum",
            "concentration",
            "training",
            "refusal",
            "skill",
            "interpolation",
            "slice",
            "candidates",
            "sparsity",
            "perplexity"
        ]
    );
    let html = fs::read_to_string(page).unwrap();
    assert_eq!(html.matches("<svg ").count(), kinds.len());
    assert!(html.contains("<title>A &lt;report&gt;</title>"));
    // Self-contained: nothing is fetched. Numbers are said under the pointer, and a legend of two series can hide them.
    assert!(html.contains("<title>layer") || html.contains(": layer"));
    let scripts = html.matches("<script").count();
    assert!(scripts > 0);
    assert_eq!(scripts, html.matches("<script>\nfor (const key of").count());
    assert!(!html.contains("src=") && !html.contains("@import") && !html.contains("url("));
}

#[test]
fn axes_carry_names_and_units_and_the_legend_names_the_sources() {
    let directory = harness::temp_dir();
    let one = stream(directory.path(), "a.jsonl", &[trajectory("general")]);
    let other = stream(directory.path(), "b.jsonl", &[trajectory("general")]);
    let done = plot()
        .args([format!("base={one}"), format!("tuned={other}")])
        .args(["--figure", "trajectory", "--to", "svg", "-o", "-"])
        .output()
        .expect(0);
    for text in [
        "depth [block / blocks]",
        "projection on PC1 [residual units]",
        "base · general",
        "tuned · general",
    ] {
        assert!(done.text().contains(text), "{text} is missing");
    }
}

#[test]
fn candidates_have_a_panel_for_every_measure_and_the_chosen_one_is_marked() {
    let directory = harness::temp_dir();
    let rows = [candidate(0, -0.5, false), candidate(1, -3.0, true)];
    let input = stream(directory.path(), "a.jsonl", &rows);
    let done = plot()
        .args([&input, "--figure", "candidates", "--to", "svg", "-o", "-"])
        .output()
        .expect(0);
    for text in [
        "refusal score, ablated [log odds]",
        "change of harmless answers [nats of KL divergence]",
        "refusal score, added [log odds]",
        "length of the vector [residual units]",
        "token -1",
        "chosen",
    ] {
        assert!(done.text().contains(text), "{text} is missing");
    }
    assert!(!done.text().contains("false-refusal score"));
}

#[test]
fn a_png_is_drawn_without_any_font_of_the_system() {
    let directory = harness::temp_dir();
    let input = stream(directory.path(), "a.jsonl", &[layer(0, 0.4), layer(1, 0.6)]);
    let done = plot()
        .args([
            input.as_str(),
            "--figure",
            "concentration",
            "--to",
            "png",
            "-o",
            "-",
            "--scale",
            "1",
        ])
        .env("FONTCONFIG_FILE", "/nonexistent")
        .env("HOME", "/nonexistent")
        .output()
        .expect(0);
    assert!(done.stdout.starts_with(b"\x89PNG\r\n\x1a\n"));
    // A picture whose text vanished compresses to almost nothing.
    assert!(done.stdout.len() > 8_000, "{} bytes", done.stdout.len());
}

#[test]
fn the_same_records_give_the_same_bytes() {
    let directory = harness::temp_dir();
    let input = stream(directory.path(), "all.jsonl", &every_record());
    let draw = || {
        plot()
            .args([input.as_str(), "--to", "html", "-o", "-"])
            .output()
            .expect(0)
            .stdout
    };
    assert_eq!(draw(), draw());
}

#[test]
fn a_sweep_joins_the_means_of_repeats() {
    let directory = harness::temp_dir();
    let report = |value: f64| json!({"type": "stack", "alignment": value});
    let inputs: Vec<String> = [("0", 0.1), ("0", 0.3), ("0.5", 0.8)]
        .iter()
        .enumerate()
        .map(|(index, (x, value))| {
            format!(
                "SFT@{x}={}",
                stream(directory.path(), &format!("{index}.jsonl"), &[report(*value)])
            )
        })
        .collect();
    let done = plot()
        .args(&inputs)
        .args([
            "--figure",
            "sweep:stack.alignment",
            "--x-name",
            "safety share",
            "--to",
            "svg",
            "-o",
            "-",
        ])
        .output()
        .expect(0);
    assert!(done.text().contains("safety share"));
    plot()
        .args([
            &inputs[0]["SFT@0=".len()..],
            "--figure",
            "sweep:stack.alignment",
            "--to",
            "svg",
            "-o",
            "-",
        ])
        .output()
        .refused(2, "no place on the axis");
}

#[test]
fn one_picture_holds_one_figure() {
    let directory = harness::temp_dir();
    let input = stream(directory.path(), "all.jsonl", &every_record());
    plot()
        .args([input.as_str(), "--to", "svg", "-o", "-"])
        .output()
        .refused(2, "12 figures");
    plot()
        .args([
            input.as_str(),
            "--to",
            "svg",
            "-o",
            "-",
            "--figure",
            "training",
            "--figure",
            "slice",
        ])
        .output()
        .refused(2, "one picture");
}

#[test]
fn what_cannot_be_drawn_is_refused_with_its_place() {
    let directory = harness::temp_dir();
    let empty = stream(directory.path(), "empty.jsonl", &[]);
    plot()
        .args([empty.as_str(), "--to", "svg", "-o", "-"])
        .output()
        .refused(3, "no record here can be drawn");
    let mut broken = trajectory("x");
    broken["depth"] = json!("deep");
    let mistyped = stream(directory.path(), "mistyped.jsonl", &[broken]);
    plot()
        .args([mistyped.as_str(), "--to", "svg", "-o", "-"])
        .output()
        .refused(3, "mistyped.jsonl:2: trajectory record");
    let other = stream(directory.path(), "layer.jsonl", &[layer(0, 0.5)]);
    plot()
        .args([other.as_str(), "--to", "svg", "-o", "-", "--figure", "slice"])
        .output()
        .refused(3, "belongs to the figure slice");
    plot()
        .args([other.as_str(), "--to", "svg", "-o", "-", "--figure", "layer:no_such"])
        .output()
        .refused(2, "no layer record");
    plot()
        .args([other.as_str(), "-o", "x.gif"])
        .output()
        .refused(2, "which format");
    plot()
        .args([other.as_str(), "--to", "svg"])
        .output()
        .refused(2, "no output was named");
}

#[test]
fn unequal_lengths_are_refused() {
    let directory = harness::temp_dir();
    let mut short = trajectory("x");
    short["projection"] = json!([1.0]);
    let input = stream(directory.path(), "short.jsonl", &[short]);
    plot()
        .args([input.as_str(), "--to", "svg", "-o", "-"])
        .output()
        .refused(3, "short.jsonl");
}

#[test]
fn an_existing_picture_is_kept_unless_forced() {
    let directory = harness::temp_dir();
    let input = stream(directory.path(), "a.jsonl", &[layer(0, 0.4), layer(1, 0.5)]);
    let target = directory.path().join("a.svg");
    fs::write(&target, "mine").unwrap();
    let arguments = [
        input.as_str(),
        "--figure",
        "concentration",
        "-o",
        target.to_str().unwrap(),
    ];
    plot().args(arguments).output().refused(5, "exists");
    assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
    plot().args(arguments).arg("--force").output().expect(0);
    assert!(fs::read_to_string(&target).unwrap().starts_with("<svg"));
}

/// The middle layers of a model of 16: drawn where they are, not stretched to the whole axis.
#[test]
fn a_window_of_layers_is_drawn_at_its_depth() {
    let directory = harness::temp_dir();
    let window = |known: bool| -> Vec<Value> {
        let place = |(index, c_1)| {
            let mut row = layer(index, c_1);
            row["layer_count"] = json!(16);
            row["depth"] = json!((index as f64 + 1.0) / 16.0);
            if !known {
                row.as_object_mut()
                    .unwrap()
                    .retain(|key, _| key != "layer_count" && key != "depth");
            }
            row
        };
        [(4, 0.4), (7, 0.6)].map(place).to_vec()
    };
    let draw = |name: &str, rows: &[Value]| {
        let input = stream(directory.path(), name, rows);
        let done = plot().args([input.as_str(), "--figure", "concentration", "--to", "svg", "-o", "-"]);
        done.output().expect(0)
    };
    let (known, unknown) = (
        draw("known.jsonl", &window(true)),
        draw("unknown.jsonl", &window(false)),
    );
    assert!(!known.stderr.contains("blocks"), "{}", known.stderr);
    assert!(
        unknown.stderr.contains("as if block 7 were the last"),
        "{}",
        unknown.stderr
    );
    // The curve is the last line that is not the frame; it ends where the axis does only where block 7 is taken for the last.
    let curve_end = |svg: &str| -> f64 {
        let is_curve = |line: &&str| line.starts_with("<polyline") && !line.contains("#555555");
        let curve = svg.lines().rfind(is_curve).expect("a curve");
        let (_, points) = curve.split_once("points=\"").expect("its points");
        let (points, _) = points.split_once(" \"").expect("their end");
        let last = points.rsplit(' ').next().and_then(|point| point.split(',').next());
        last.expect("a point").parse().expect("a number")
    };
    assert!(curve_end(known.text()) < curve_end(unknown.text()));
}
