//! What writes to the residual stream, by the names of a checkpoint: whoever takes a direction out of a model asks here.

use crate::config::Config;

/// A parameter whose rows, or whose products, are added to the residual stream as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamWriter {
    /// In a checkpoint.
    pub name: String,
    /// The axis of the stored tensor that runs along the stream.
    pub axis: usize,
}

impl Config {
    /// Everything that writes to the residual stream: embedding, learned positions, and what comes last in attention and MLP. None
    /// where norms stand between those and the stream.
    pub fn stream_writers(&self) -> Option<Vec<StreamWriter>> {
        let names = &self.names;
        if names.after_attention.is_some() || names.after_mlp.is_some() {
            return None;
        }
        let tables = [Some(names.embedding), names.positions].into_iter().flatten();
        let mut writers: Vec<StreamWriter> = tables
            .map(|name| StreamWriter {
                name: format!("{name}.weight"),
                axis: 1,
            })
            .collect();
        for layer in 0..self.layer_count() {
            for (part, is_biased) in [(names.attn_out, self.attn_out_bias), (names.mlp_out, self.mlp_bias)] {
                let name = names.in_block(layer, part);
                writers.push(StreamWriter {
                    name: format!("{name}.weight"),
                    axis: usize::from(names.transposed),
                });
                writers.extend(is_biased.then(|| StreamWriter {
                    name: format!("{name}.bias"),
                    axis: 0,
                }));
            }
        }
        Some(writers)
    }

    /// The name of the embedding, and of the output head, in a checkpoint.
    pub fn table_names(&self) -> [String; 2] {
        [self.names.embedding, self.names.head].map(|name| format!("{name}.weight"))
    }
}
