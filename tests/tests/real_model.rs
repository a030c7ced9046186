//! A real model, SmolLM2-135M-Instruct, against transformers: what `scripts/parity/smollm2.py` recorded of the same file.

use std::fs;

use harness::{Run, smollm2, temp_dir, tool, workspace};
use serde_json::Value;

fn recorded(name: &str) -> Vec<u8> {
    fs::read(workspace().join("tests/fixtures/smollm2").join(name)).unwrap()
}

/// The prompts, and what transformers answers greedily.
fn answers() -> Vec<(String, String)> {
    let rows: Vec<Value> = serde_json::from_slice(&recorded("answers.json")).unwrap();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    rows.iter()
        .map(|row| (text(row, "prompt"), text(row, "completion")))
        .collect()
}

#[test]
fn its_answers_are_those_of_transformers() {
    let Some(model) = smollm2() else { return };
    let answers = answers();
    let prompts: String = answers
        .iter()
        .map(|(prompt, _)| serde_json::json!({"prompt": prompt}).to_string() + "\n")
        .collect();
    let run = Run::new(tool("lm-gen")).arg("--model").arg(model);
    let done = run
        .args(["--chat", "--max-new-tokens", "16", "-"])
        .stdin(prompts)
        .output()
        .expect(0);
    let given: Vec<Value> = done
        .records()
        .into_iter()
        .filter(|row| row["type"] == "completion")
        .collect();
    assert_eq!(given.len(), answers.len());
    for (given, (prompt, answer)) in given.iter().zip(&answers) {
        assert_eq!(given["completion"], **answer, "{prompt}");
    }
}

#[test]
fn its_residual_stream_is_that_of_transformers() {
    let Some(model) = smollm2() else { return };
    let directory = temp_dir();
    let output = directory.path().join("last.acts");
    let prompt = serde_json::json!({"prompt": answers()[0].0}).to_string();
    let run = Run::new(tool("resid-dump"))
        .arg("--model")
        .arg(model)
        .args(["--chat", "--positions", "last"]);
    let run = run
        .args(["--store-dtype", "f32", "-"])
        .arg("-o")
        .arg(&output)
        .stdin(prompt);
    run.output().expect(0);
    let dump = acts::File::open(&output, acts::OpenOptions::default()).unwrap();
    let golden = golden();
    // the last of transformers' states is after the final norm
    for (layer, golden) in golden.iter().enumerate().take(29) {
        let tensor = dump.tensor(&format!("resid_post.{layer}")).unwrap();
        let own: Vec<f32> = dump.to_vec(tensor, 0..1).unwrap();
        let largest = golden.iter().fold(0f32, |most, value| most.max(value.abs()));
        let differences = own.iter().zip(golden).map(|(a, b)| (a - b).abs());
        let most = differences.fold(0f32, f32::max) / largest;
        println!("{layer:2} {most:.1e}");
        assert!(most < 2e-5, "layer {layer}: {most}");
    }
}

/// Rows of f32: the tensor `last` is all that the file holds.
fn golden() -> Vec<Vec<f32>> {
    let bytes = recorded("last_token.safetensors");
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let values = bytes[header..]
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes(four.try_into().unwrap()));
    let values: Vec<f32> = values.collect();
    values.chunks_exact(576).map(<[f32]>::to_vec).collect()
}
