//! `--inspect`: what a model is and what a token costs, before anyone commits disk.

use model::Site;
use process::{Error, Outcome, Result};

use crate::cli::Args;
use crate::plan;
use crate::report::{self, ModelRow, SiteRow};

pub fn run(args: &Args) -> Result<Outcome> {
    let checkpoint = plan::open(args, model::Device::Cpu)?;
    let config = checkpoint.config();
    let layers = plan::layers(args, config)?;
    let value = |row: serde_json::Result<serde_json::Value>| row.map_err(|cause| Error::bug("record", cause));
    let mut rows = vec![value(serde_json::to_value(ModelRow {
        family: config.family,
        model_digest: checkpoint.digest().to_owned(),
        layer_count: config.layer_count(),
        hidden_size: config.hidden_size,
        head_count: config.head_count,
        kv_head_count: config.kv_head_count,
        head_dim: config.head_dim,
        mlp_size: config.mlp_size,
        vocab_size: config.vocab_size,
        position_count: config.position_count,
        tied_head: config.tied,
        parameter_count: config.parameter_count(),
        weight_bytes: checkpoint.weight_bytes(),
    }))?];
    for site in Site::ALL.into_iter().filter(|site| site.exists(config)) {
        let (width, tensor_count) = (site.width(config), if site.layered() { layers.len() } else { 1 });
        rows.push(value(serde_json::to_value(SiteRow {
            site: site.name(),
            width,
            tensor_count,
            bytes_per_token_f32: 4 * width * tensor_count,
            bytes_per_token_bf16: 2 * width * tensor_count,
        }))?);
    }
    report::print(&rows)?;
    Ok(Outcome::Complete)
}
