//! Models of pictures and text, of which the decoder of text alone is run: a directory of one stands for that of its decoder.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A model around a decoder.
struct Wrapper {
    /// The `model_type` of config.json.
    name: &'static str,
    /// What transformers takes where `text_config` does not say it.
    text_type: &'static str,
    architecture: &'static str,
    /// Sizes that `text_config` may leave out.
    sizes: &'static [(&'static str, u64)],
}

const ALL: [Wrapper; 3] = [
    Wrapper {
        name: "gemma3",
        text_type: "gemma3_text",
        architecture: "Gemma3ForCausalLM",
        sizes: &[
            ("vocab_size", 262_208),
            ("hidden_size", 2_304),
            ("intermediate_size", 9_216),
            ("num_hidden_layers", 26),
            ("num_attention_heads", 8),
        ],
    },
    Wrapper {
        name: "mistral3",
        text_type: "mistral",
        architecture: "MistralForCausalLM",
        sizes: &[],
    },
    Wrapper {
        name: "llama4",
        text_type: "llama4_text",
        architecture: "Llama4ForCausalLM",
        sizes: &[
            ("vocab_size", 202_048),
            ("hidden_size", 5_120),
            ("intermediate_size", 8_192),
            ("num_hidden_layers", 48),
            ("num_attention_heads", 40),
        ],
    },
];

/// What the outer config.json says of the decoder too, unless `text_config` does.
const SHARED: [&str; 8] = [
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "quantization_config",
    "tie_word_embeddings",
];

/// The config of the decoder in a wrapper; none where `config` is that of a decoder. It lacks `tie_word_embeddings` where
/// nothing says it: then the weights do.
pub fn text_config(config: &Map<String, Value>) -> Result<Option<Map<String, Value>>> {
    let name = config.get("model_type").and_then(Value::as_str);
    let Some(wrapper) = ALL.iter().find(|wrapper| Some(wrapper.name) == name) else {
        return Ok(None);
    };
    let Some(Value::Object(inner)) = config.get("text_config") else {
        return Err(Error::Config("text_config is missing".into()));
    };
    let mut inner = inner.clone();
    for key in SHARED {
        if let Some(value) = config.get(key).filter(|_| inner.get(key).is_none_or(Value::is_null)) {
            inner.insert(key.into(), value.clone());
        }
    }
    if let Some(tied) = config.get("tie_word_embeddings") {
        inner.insert("tie_word_embeddings".into(), tied.clone());
    }
    inner.entry("model_type").or_insert(wrapper.text_type.into());
    for (key, size) in wrapper.sizes {
        inner.entry(*key).or_insert((*size).into());
    }
    let is_usual = inner.get("model_type").and_then(Value::as_str) == Some(wrapper.text_type);
    match is_usual {
        true => inner.insert("architectures".into(), vec![wrapper.architecture].into()),
        false => inner.remove("architectures"),
    };
    Ok(Some(inner))
}

/// What a decoder's own checkpoint calls a tensor of a wrapper's; none for one of another part.
pub fn text_name(name: &str) -> Option<String> {
    // transformers 4 wrote the first and the second, 5 writes the third and plain `lm_head`
    let renamed = [
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("model.language_model.", "model."),
    ];
    let found = renamed
        .iter()
        .find_map(|(theirs, own)| Some(format!("{own}{}", name.strip_prefix(theirs)?)));
    found.or_else(|| name.starts_with("lm_head.").then(|| name.to_owned()))
}

/// Whether a tensor belongs to another part of a wrapper.
pub fn is_foreign(name: &str) -> bool {
    let parts = ["vision_tower.", "vision_model.", "multi_modal_projector."];
    let bare = name.strip_prefix("model.").unwrap_or(name);
    parts.iter().any(|part| bare.starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inner(config: Value) -> Map<String, Value> {
        let Value::Object(config) = config else { panic!() };
        text_config(&config).unwrap().unwrap()
    }

    #[test]
    fn a_sparse_text_config_is_filled_as_transformers_fills_it() {
        let config = inner(
            serde_json::json!({"model_type": "gemma3", "eos_token_id": [1, 106], "torch_dtype": "bfloat16",
            "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}}),
        );
        let config = crate::Config::of(&config).unwrap();
        assert_eq!(
            (config.family, config.hidden_size, config.layer_count()),
            ("gemma3_text", 2560, 34)
        );
        assert_eq!((config.head_count, config.kv_head_count, config.head_dim), (8, 4, 256));
        assert_eq!((config.vocab_size, config.eos.as_slice()), (262_208, &[1, 106][..]));
    }

    #[test]
    fn the_outer_config_says_whether_the_head_is_tied() {
        let tied = |outer: Option<bool>, own: Option<bool>| {
            let mut config = serde_json::json!({"model_type": "mistral3", "text_config": {}});
            if let Some(outer) = outer {
                config["tie_word_embeddings"] = outer.into();
            }
            if let Some(own) = own {
                config["text_config"]["tie_word_embeddings"] = own.into();
            }
            inner(config).get("tie_word_embeddings").and_then(Value::as_bool)
        };
        assert_eq!(tied(Some(false), Some(true)), Some(false));
        assert_eq!(tied(None, Some(true)), Some(true));
        assert_eq!(tied(None, None), None);
    }

    #[test]
    fn every_spelling_of_a_tensor_is_that_of_the_decoder() {
        let own = "model.layers.0.mlp.up_proj.weight";
        for name in [
            "language_model.model.layers.0.mlp.up_proj.weight",
            "model.language_model.layers.0.mlp.up_proj.weight",
        ] {
            assert_eq!(text_name(name).as_deref(), Some(own));
        }
        for name in ["language_model.lm_head.weight", "lm_head.weight"] {
            assert_eq!(text_name(name).as_deref(), Some("lm_head.weight"));
        }
        assert!(text_name("audio_tower.weight").is_none() && !is_foreign("audio_tower.weight"));
        assert!(is_foreign("model.vision_tower.weight") && is_foreign("vision_tower.weight"));
    }
}
