//! What `vcl-train --init` starts from: a byte-level BPE tokenizer trained on the world's own text, and the configuration of a Llama of
//! under a million parameters.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Result, TokenizerBuilder};

const SPECIAL: [&str; 4] = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"];
const TEMPLATE: &str = "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}\
                        {% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

pub fn write(directory: &Path, texts: &[String], vocabulary: usize) -> Result<()> {
    let vocabulary = write_tokenizer(&directory.join("tokenizer.json"), texts, vocabulary)?;
    for (name, value) in [
        ("tokenizer_config.json", tokenizer_config()),
        ("config.json", config(vocabulary)),
        (
            "generation_config.json",
            json!({"eos_token_id": 0, "pad_token_id": 0, "do_sample": false}),
        ),
    ] {
        fs::write(directory.join(name), format!("{value:#}\n"))?;
    }
    Ok(())
}

/// Trains the tokenizer; gives the number of its tokens.
fn write_tokenizer(path: &Path, texts: &[String], vocabulary: usize) -> Result<usize> {
    let added = SPECIAL.map(|text| AddedToken::from(text, true));
    let mut trainer: tokenizers::models::TrainerWrapper = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocabulary)
        .special_tokens(added.to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build()
        .into();
    // A leading space is part of a word, so "kill" is one token wherever it stands in a sentence.
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer = TokenizerBuilder::<_, tokenizers::NormalizerWrapper, _, _, _>::new()
        .with_model(tokenizers::ModelWrapper::from(BPE::default()))
        .with_normalizer(None)
        .with_pre_tokenizer(Some(tokenizers::PreTokenizerWrapper::from(bytes)))
        .with_post_processor(Some(tokenizers::PostProcessorWrapper::from(ByteLevel::new(
            false, false, true,
        ))))
        .with_decoder(Some(tokenizers::DecoderWrapper::from(ByteLevel::default())))
        .build()?;
    tokenizer.train(&mut trainer, texts.iter().map(String::as_str))?;
    tokenizer.save(path, false)?;
    Ok(tokenizer.get_vocab_size(true))
}

fn tokenizer_config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "pad_token": "<|end|>",
        "add_bos_token": false,
        "clean_up_tokenization_spaces": false,
        "model_max_length": 256,
        "chat_template": TEMPLATE,
    })
}

fn config(vocabulary: usize) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "max_position_embeddings": 256,
        "vocab_size": vocabulary,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": null,
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": true,
        "initializer_range": 0.05,
        "bos_token_id": null,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    })
}
