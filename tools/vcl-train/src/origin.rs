//! The model that a run begins from.

use std::path::PathBuf;

use model::config::Config;
use model::{Checkpoint, Directory};

pub struct Origin {
    /// As typed: a model directory, or a config.json.
    pub path: PathBuf,
    pub config: Config,
    /// The text of config.json.
    pub config_text: Vec<u8>,
    /// Where the tokenizer's files lie, to be copied.
    pub companions: Directory,
    /// None: training from scratch.
    pub checkpoint: Option<Checkpoint>,
}
