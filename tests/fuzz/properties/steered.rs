//! What holds for any bytes as a steering plan, and as the journal of a run that is to be resumed.

use std::path::PathBuf;
use std::sync::OnceLock;

use acts::Header;
use model::{Checkpoint, Options, Steering};
use process::{Existing, Journal, MixedCompute, Output};
use serde_json::Value;
use steering::{How, Plan};

use super::{check_message, fixtures, place, write};

/// A plan that is read is written and read again to an equal one, and put to use or refused. Digests are repaired first.
pub fn plan(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    static MODEL: OnceLock<Checkpoint> = OnceLock::new();
    let directory = place(&PLACE, &[]);
    let mut data = data.to_vec();
    super::container::repair(&mut data);
    let plan = match Plan::read(&write(directory, "plan.acts", &data)) {
        Err(error) => return check_message(&error),
        Ok(plan) => plan,
    };
    let again = directory.join("again.acts");
    let output = Output::create_binary(&again, Existing::Replace, &[]).expect("a place for the file");
    let header = Header::new("fuzz", "0", "", None);
    let written = plan.write(output, header).expect("what was read can be written");
    written.commit().expect("a place for the file");
    assert_eq!(Plan::read(&again).expect("and read again"), plan);
    let model = MODEL.get_or_init(|| {
        Checkpoint::open(&fixtures().join("models/llama"), &Options::default()).expect("a model of tests/fixtures")
    });
    let layers: Vec<usize> = (0..model.config().layer_count()).collect();
    let how = How {
        scale: 0.5,
        layers: &layers,
        allow_other_model: true,
    };
    let mut steering = Steering::new(model.config(), model.device());
    if let Err(cause) = plan.steer(&mut steering, model, how) {
        check_message(&cause);
    }
}

/// The digest of each line is repaired first. What is read as marks is there again at the next reading.
pub fn journal(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let directory = place(&PLACE, &[]);
    let text: String = String::from_utf8_lossy(data)
        .lines()
        .map(|line| format!("{line}\t{}\n", process::sha256(line.as_bytes())))
        .collect();
    let output = directory.join("run");
    write(directory, ".run.journal", text.as_bytes());
    let plan = serde_json::json!({"seed": 1});
    let resume = || Journal::resume::<Value>(&output, &plan, MixedCompute::default()).map(|(_, marks)| marks);
    match resume() {
        Err(error) => check_message(&error),
        Ok(marks) => assert_eq!(resume().expect("it was read before"), marks),
    }
}
