//! What is read from a config.json, and what is refused.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::ops::Window;

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
    assert_eq!(windows(&text), vec![Some(Window::Sliding(4096)); 5]);
    let text = text.replace("\"vocab_size\"", "\"sliding_window\":null,\"vocab_size\"");
    assert_eq!(windows(&text), vec![None; 5]);
}

#[test]
fn a_variant_that_is_not_computed_is_refused_by_name() {
    let falcon = |more: &str| {
        format!(
            r#"{{"model_type":"falcon","hidden_size":64,"num_hidden_layers":2,"num_attention_heads":8,"vocab_size":512{more}}}"#
        )
    };
    let opt = |more: &str| {
        format!(
            r#"{{"model_type":"opt","hidden_size":64,"ffn_dim":64,"num_hidden_layers":2,"num_attention_heads":8,"vocab_size":512{more}}}"#
        )
    };
    let as_family = |name: &str, more: &str| format!("{LLAMA}{more}}}").replace("llama", name);
    let cases = [
        (falcon(r#","alibi":true"#), "alibi"),
        (
            falcon(r#","new_decoder_architecture":true,"parallel_attn":false"#),
            "parallel_attn",
        ),
        (falcon(r#","num_ln_in_parallel_attn":2"#), "num_ln_in_parallel_attn"),
        (falcon(r#","multi_query":false,"num_kv_heads":2"#), "num_kv_heads"),
        (opt(r#","do_layer_norm_before":false"#), "do_layer_norm_before"),
        (opt(r#","word_embed_proj_dim":32"#), "word_embed_proj_dim"),
        (opt(r#","_remove_final_layer_norm":true"#), "_remove_final_layer_norm"),
        (as_family("olmo3", r#","rope_theta":10000.0"#), "rope_theta"),
        (as_family("ministral3", ""), "rope_parameters"),
        (
            as_family("smollm3", r#","no_rope_layers":[1,1,1,1,2]"#),
            "no_rope_layers",
        ),
        (as_family("smollm3", r#","no_rope_layers":[1,1]"#), "no_rope_layers"),
        (
            as_family("granite", r#","residual_multiplier":"much""#),
            "residual_multiplier",
        ),
        (
            as_family("llama", r#","rope_scaling":{"rope_type":"dynamic"}"#),
            "lacks factor",
        ),
        (
            as_family(
                "llama",
                r#","rope_scaling":{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":64,"beta_fast":0.001,"beta_slow":1000}"#,
            ),
            "no range",
        ),
    ];
    for (text, named) in cases {
        let said = Config::parse(text.as_bytes()).expect_err(named).to_string();
        assert!(said.contains(named), "{said}");
    }
    Config::parse(falcon("").as_bytes()).unwrap();
    Config::parse(opt("").as_bytes()).unwrap();
}

const GPT_OSS: &str = r#"{"model_type":"gpt_oss","hidden_size":64,"intermediate_size":32,"num_hidden_layers":2,
    "num_attention_heads":8,"num_key_value_heads":4,"head_dim":8,"vocab_size":512,"num_local_experts":4"#;

const LLAMA4: &str = r#"{"model_type":"llama4_text","hidden_size":64,"intermediate_size":32,"num_hidden_layers":4,
    "num_attention_heads":8,"num_key_value_heads":4,"head_dim":8,"vocab_size":512,"num_local_experts":4"#;

#[test]
fn what_a_mixture_cannot_be_is_refused_by_name() {
    let cases = [
        (GPT_OSS, r#","num_experts_per_tok":5"#, "5 experts are chosen of 4"),
        (GPT_OSS, r#","num_experts_per_tok":0"#, "num_experts_per_tok"),
        (
            GPT_OSS,
            r#","num_experts_per_tok":2,"experts_per_token":4"#,
            "experts_per_token",
        ),
        (GPT_OSS, r#","sliding_window":0"#, "sliding_window"),
        (
            GPT_OSS,
            r#","sliding_window":null,"layer_types":["sliding_attention","full_attention"]"#,
            "sliding_window is absent",
        ),
        (
            GPT_OSS,
            r#","layer_types":["chunked_attention","full_attention"]"#,
            "layer_types",
        ),
        (GPT_OSS, r#","hidden_act":"gelu""#, "hidden_act"),
        (GPT_OSS, r#","swiglu_limit":0"#, "swiglu_limit"),
        (GPT_OSS, r#","swiglu_alpha":"large""#, "swiglu_alpha"),
        (
            GPT_OSS,
            r#","interleave_moe_layer_step":2"#,
            "interleave_moe_layer_step",
        ),
        (LLAMA4, r#","num_experts_per_tok":5"#, "5 experts are chosen of 4"),
        (LLAMA4, r#","attention_chunk_size":0"#, "attention_chunk_size"),
        (LLAMA4, r#","interleave_moe_layer_step":0"#, "interleave_moe_layer_step"),
        (LLAMA4, r#","moe_layers":[1,4]"#, "moe_layers"),
        (LLAMA4, r#","moe_layers":"all""#, "moe_layers"),
        (LLAMA4, r#","no_rope_layers":[1,1]"#, "no_rope_layers"),
        (LLAMA4, r#","floor_scale":0"#, "floor_scale"),
        (LLAMA4, r#","attn_scale":-1"#, "attn_scale"),
        (
            LLAMA4,
            r#","attn_temperature_tuning":"warm""#,
            "attn_temperature_tuning",
        ),
        (
            LLAMA4,
            r#","attention_chunk_size":null,"layer_types":["chunked_attention","full_attention","full_attention","full_attention"]"#,
            "attention_chunk_size is absent",
        ),
    ];
    for (start, more, named) in cases {
        let said = Config::parse(format!("{start}{more}}}").as_bytes())
            .expect_err(named)
            .to_string();
        assert!(said.contains(named) && !said.contains('\n'), "{said}");
    }
}

#[test]
fn more_experts_than_a_tensor_can_have_numbers_are_refused() {
    let text = format!("{GPT_OSS}}}")
        .replace(r#""hidden_size":64"#, r#""hidden_size":4194304"#)
        .replace(r#""intermediate_size":32"#, r#""intermediate_size":4194304"#)
        .replace(r#""num_local_experts":4"#, r#""num_local_experts":4194304"#);
    let said = Config::parse(text.as_bytes()).unwrap_err().to_string();
    assert!(said.contains("4194304 experts"), "{said}");
}

#[test]
fn a_gpt_oss_without_a_rope_has_the_usual_one() {
    let config = |more: &str| Config::parse(format!("{GPT_OSS}{more}}}").as_bytes()).unwrap();
    let told = r#","rope_theta":150000,"rope_scaling":{"rope_type":"yarn","factor":32.0,"beta_fast":32.0,"beta_slow":1.0,
        "truncate":false,"original_max_position_embeddings":4096},"initial_context_length":4096,"experts_per_token":4"#;
    assert_eq!(config("").ropes, config(told).ropes);
    let windows: Vec<_> = config("").layers.iter().map(|layer| layer.window).collect();
    assert_eq!(windows, [Some(Window::Sliding(128)), None]);
}

#[test]
fn a_llama4_turns_sees_and_mixes_by_layer() {
    let layers = |more: &str| Config::parse(format!("{LLAMA4}{more}}}").as_bytes()).unwrap().layers;
    let turns = |more| {
        layers(more)
            .iter()
            .map(|layer| layer.rope.is_some())
            .collect::<Vec<_>>()
    };
    let dense = |more| layers(more).iter().map(|layer| layer.dense).collect::<Vec<_>>();
    let windows = |more| layers(more).iter().map(|layer| layer.window).collect::<Vec<_>>();
    let chunk = Some(Window::Chunk(8_192));
    assert_eq!(turns(""), [true, true, true, false]);
    assert_eq!(turns(r#","no_rope_layers":[]"#), turns(""));
    assert_eq!(windows(""), [chunk, chunk, chunk, None]);
    assert_eq!(windows(r#","attention_chunk_size":null"#), [None; 4]);
    assert_eq!(
        windows(r#","no_rope_layers":[0,1,1,1],"attention_chunk_size":8192"#),
        [None, chunk, chunk, chunk]
    );
    assert_eq!(dense(""), [None; 4]);
    let (none, some) = (None, Some(96));
    assert_eq!(
        dense(r#","interleave_moe_layer_step":2,"intermediate_size_mlp":96"#),
        [some, none, some, none]
    );
    assert_eq!(
        dense(r#","moe_layers":[3],"intermediate_size_mlp":96"#),
        [some, some, some, none]
    );
}

#[test]
fn queries_of_llama4_grow_from_a_stretch_to_the_next() {
    let growth = |more: &str| {
        Config::parse(format!("{LLAMA4}{more}}}").as_bytes())
            .unwrap()
            .query_growth
    };
    let four = growth(r#","floor_scale":4,"attn_scale":0.5,"attn_temperature_tuning":4"#).unwrap();
    let factors = [0, 2, 3, 6, 7].map(|position| four.factor(position));
    let step = |passed: f32| passed.ln_1p() * 0.5 + 1.0;
    assert_eq!(factors, [1.0, 1.0, step(1.0), step(1.0), step(2.0)]);
    assert!(growth("").is_some());
    assert!(growth(r#","attn_temperature_tuning":false"#).is_none());
    assert!(growth(r#","attn_temperature_tuning":0"#).is_none());
}

#[test]
fn without_their_key_there_are_as_many_key_heads_as_transformers_takes() {
    let count = |family: &str, key: &str| {
        let text = format!("{LLAMA}}}").replace("llama", family);
        let text = text.replace("\"num_key_value_heads\":4,", key);
        Config::parse(text.as_bytes()).map(|config| config.kv_head_count)
    };
    for (family, expected) in [
        ("llama", 8),
        ("gemma2", 4),
        ("gemma3_text", 4),
        ("smollm3", 4),
        ("glm", 2),
    ] {
        assert_eq!(count(family, "").unwrap(), expected, "{family}");
        assert_eq!(count(family, "\"num_key_value_heads\":null,").unwrap(), 8, "{family}");
    }
    assert!(count("gemma", "").is_err()); // 16 for 8 heads
}

#[test]
fn a_dynamic_or_grown_rope_is_run_as_far_as_it_is_plain() {
    let dynamic = llama(r#","rope_scaling":{"type":"dynamic","factor":2.0}"#).unwrap();
    assert_eq!(
        (dynamic.position_count, &dynamic.ropes),
        (512, &llama("").unwrap().ropes)
    );
    let text = format!("{LLAMA}}}").replace("llama", "ministral3").replace(
        "\"vocab_size\"",
        r#""rope_parameters":{"type":"yarn","factor":8,"rope_theta":1e6,"original_max_position_embeddings":64,
        "llama_4_scaling_beta":0.1},"vocab_size""#,
    );
    assert_eq!(Config::parse(text.as_bytes()).unwrap().position_count, 64);
}
