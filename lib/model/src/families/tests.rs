//! What is read from a config.json, and what is refused.

use crate::config::Config;
use crate::error::{Error, Result};

const LLAMA: &str = r#"{"model_type":"llama","hidden_size":64,"intermediate_size":172,"num_hidden_layers":5,
    "num_attention_heads":8,"num_key_value_heads":4,"vocab_size":512,"max_position_embeddings":512,
    "rms_norm_eps":1e-05,"eos_token_id":[2,3]"#;

fn llama(more: &str) -> Result<Config> {
    Config::parse(format!("{LLAMA}{more}}}").as_bytes())
}

#[test]
fn both_spellings_of_rope_give_the_same_decoder() {
    let old = llama(
        r#","rope_theta":500000.0,"rope_scaling":{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
        "original_max_position_embeddings":64,"rope_type":"llama3"},"torch_dtype":"bfloat16""#,
    );
    let new = llama(
        r#","rope_parameters":{"rope_theta":500000.0,"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
        "original_max_position_embeddings":64,"rope_type":"llama3"},"dtype":"bfloat16""#,
    );
    assert_eq!(old.unwrap(), new.unwrap());
}

#[test]
fn an_eos_list_is_read_whole() {
    assert_eq!(llama("").unwrap().eos, [2, 3]);
}

#[test]
fn a_key_that_may_change_the_result_is_refused_by_name() {
    for (more, named) in [
        (r#","num_local_experts":8"#, "num_local_experts"),
        (r#","residual_multiplier":0.22"#, "residual_multiplier"),
        (r#","rope_scaling":{"rope_type":"yarn","factor":4.0}"#, "yarn"),
        (
            r#","rope_scaling":{"rope_type":"linear","factor":4.0,"surprise":1}"#,
            "surprise",
        ),
        (r#","hidden_act":"quick_gelu""#, "quick_gelu"),
        (r#","rope_interleaved":true"#, "rope_interleaved"),
        (r#","quantization_config":{"bits":4}"#, "quantised"),
    ] {
        let error = llama(more).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    llama(r#","some_future_switch":false,"_name_or_path":"x","pretraining_tp":1"#).unwrap();
}

/// L-05.
#[test]
fn l_05_impossible_configs_are_refused() {
    let cases = [
        ("\"hidden_size\":64", "\"hidden_size\":0"),
        ("\"hidden_size\":64", "\"hidden_size\":-64"),
        ("\"hidden_size\":64", "\"hidden_size\":2147483648"),
        ("\"hidden_size\":64", "\"hidden_size\":63"),
        ("\"hidden_size\":64", "\"hidden_size\":64,\"hidden_size\":65"),
        ("\"hidden_size\":64", "\"hidden_size\":\"64\""),
        ("\"num_key_value_heads\":4", "\"num_key_value_heads\":3"),
        ("\"num_hidden_layers\":5", "\"num_hidden_layers\":1000000"),
        ("\"rms_norm_eps\":1e-05", "\"rms_norm_eps\":0"),
        ("\"rms_norm_eps\":1e-05", "\"rms_norm_eps\":NaN"),
        ("\"rms_norm_eps\":1e-05", "\"rms_norm_eps\":1e999"),
        (
            "\"vocab_size\":512",
            "\"vocab_size\":512,\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}",
        ),
        ("\"vocab_size\":512", "\"vocab_size\":2"),
        ("\"model_type\":\"llama\"", "\"model_type\":\"mamba\""),
        ("\"model_type\":\"llama\",", ""),
    ];
    for (good, bad) in cases {
        let text = format!("{LLAMA}}}").replace(good, bad);
        assert!(matches!(Config::parse(text.as_bytes()), Err(Error::Config(_))), "{bad}");
    }
}

#[test]
fn a_mistral_slides_by_default_and_not_when_told_null() {
    let windows = |text: &str| -> Vec<_> {
        let config = Config::parse(text.as_bytes()).unwrap();
        config.layers.iter().map(|layer| layer.window).collect()
    };
    let text = format!("{LLAMA}}}").replace("llama", "mistral");
    assert_eq!(windows(&text), vec![Some(4096); 5]);
    let text = text.replace("\"vocab_size\"", "\"sliding_window\":null,\"vocab_size\"");
    assert_eq!(windows(&text), vec![None; 5]);
}
