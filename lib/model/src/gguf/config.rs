//! The keys of an architecture → what config.json of the same model says.

use serde_json::{Value as Json, json};

use super::file::Value;
use super::keys::Keys;
use crate::error::{Result, shown};

/// Keys of config.json with their values; null where the file is silent too.
pub type Pairs = Vec<(&'static str, Json)>;

/// What every decoder with rotary positions has.
fn rotary(keys: &Keys) -> Result<Pairs> {
    let (hidden_size, head_count) = (keys.needed("embedding_length")?, keys.needed("attention.head_count")?);
    let even_share = hidden_size.checked_div(head_count).unwrap_or_default();
    let head_dim = keys.count("attention.key_length")?.unwrap_or(even_share);
    if keys.count("attention.value_length")?.unwrap_or(even_share) != head_dim {
        return Err(keys.refuse(
            "attention.value_length",
            "differs from key_length, which is not computed",
        ));
    }
    let rotating = keys.count("rope.dimension_count")?.unwrap_or(head_dim);
    if rotating > head_dim {
        return Err(keys.refuse("rope.dimension_count", "is more than a head has"));
    }
    let share = (rotating != head_dim).then(|| rotating as f64 / head_dim as f64);
    let kv_head_count = keys.count("attention.head_count_kv")?.unwrap_or(head_count);
    Ok(vec![
        ("hidden_size", json!(hidden_size)),
        ("num_hidden_layers", json!(keys.needed("block_count")?)),
        ("intermediate_size", json!(keys.needed("feed_forward_length")?)),
        ("num_attention_heads", json!(head_count)),
        ("num_key_value_heads", json!(kv_head_count)),
        ("head_dim", json!(head_dim)),
        ("partial_rotary_factor", json!(share)),
        ("max_position_embeddings", json!(keys.needed("context_length")?)),
        ("rope_theta", json!(keys.number("rope.freq_base")?.unwrap_or(10_000.0))),
        ("rope_scaling", rope_scaling(keys)?),
    ])
}

/// Decoders with RMS norms.
pub fn rms(keys: &Keys) -> Result<Pairs> {
    let mut config = rotary(keys)?;
    let eps = keys.needed_number("attention.layer_norm_rms_epsilon")?;
    config.push(("rms_norm_eps", json!(eps)));
    Ok(config)
}

pub fn llama(keys: &Keys) -> Result<Pairs> {
    let mut config = rms(keys)?;
    refuse_partial(keys, &config)?;
    if keys.count("expert_count")?.is_some_and(|count| count > 0) {
        // Mixtral goes by the same name
        config.extend([
            ("model_type", json!("mixtral")),
            ("sliding_window", json!(window(keys)?)),
        ]);
        config.extend(experts(keys)?);
        return Ok(config);
    }
    keys.get("expert_used_count");
    match window(keys)? {
        // and Mistral
        Some(length) => config.extend([("model_type", json!("mistral")), ("sliding_window", json!(length))]),
        None => config.extend([
            ("attention_bias", json!(keys.has_tensor("blk.0.attn_output.bias"))),
            ("mlp_bias", json!(keys.has_tensor("blk.0.ffn_up.bias"))),
        ]),
    }
    Ok(config)
}

/// Ministral 3, or a Mistral before it.
pub fn mistral3(keys: &Keys) -> Result<Pairs> {
    let Some(growth) = keys.number("attention.temperature_scale")? else {
        return llama(keys);
    };
    let mut config = rms(keys)?;
    refuse_partial(keys, &config)?;
    let weight = keys.number("rope.scaling.yarn_log_multiplier")?;
    for (key, rope) in config.iter_mut().filter(|(key, _)| *key == "rope_scaling") {
        *key = "rope_parameters";
        if let Json::Object(rope) = rope {
            rope.extend([
                ("llama_4_scaling_beta".into(), json!(growth)),
                ("mscale".into(), json!(weight.map(|_| 1.0))),
                ("mscale_all_dim".into(), json!(weight)),
            ]);
        }
    }
    config.extend([
        ("model_type", json!("ministral3")),
        ("sliding_window", json!(window(keys)?)),
    ]);
    Ok(config)
}

/// How many experts there are, and how many a row goes through.
fn experts(keys: &Keys) -> Result<Pairs> {
    const SOFTMAX: usize = 1;
    if keys
        .count("expert_gating_func")?
        .is_some_and(|kind| ![0, SOFTMAX].contains(&kind))
    {
        return Err(keys.refuse("expert_gating_func", "is not softmax, which alone is computed"));
    }
    Ok(vec![
        ("num_local_experts", json!(keys.needed("expert_count")?)),
        ("num_experts_per_tok", json!(keys.needed("expert_used_count")?)),
    ])
}

pub fn qwen3_moe(keys: &Keys) -> Result<Pairs> {
    let mut config = rms(keys)?;
    config.extend(experts(keys)?);
    config.extend([
        (
            "moe_intermediate_size",
            json!(keys.needed("expert_feed_forward_length")?),
        ),
        ("norm_topk_prob", json!(weights_sum_to_one(keys, true)?)),
    ]);
    Ok(config)
}

pub fn olmoe(keys: &Keys) -> Result<Pairs> {
    let mut config = rms(keys)?;
    config.extend(experts(keys)?);
    if let Some(size) = keys.count("expert_feed_forward_length")? {
        config.push(("intermediate_size", json!(size)));
    }
    let clip = keys.number("attention.clamp_kqv")?;
    config.extend([
        ("norm_topk_prob", json!(weights_sum_to_one(keys, false)?)),
        ("clip_qkv", json!(clip.filter(|clip| *clip != 0.0))),
    ]);
    Ok(config)
}

pub fn gpt_oss(keys: &Keys) -> Result<Pairs> {
    let mut config = rms(keys)?;
    for (_, rope) in config.iter_mut().filter(|(key, _)| *key == "rope_scaling") {
        if let Json::Object(rope) = rope {
            rope.insert("truncate".into(), false.into());
        }
    }
    config.extend(experts(keys)?);
    if let Some(size) = keys.count("expert_feed_forward_length")? {
        config.push(("intermediate_size", json!(size)));
    }
    config.extend([
        ("sliding_window", json!(keys.needed("attention.sliding_window")?)),
        ("layer_types", sliding_by_layer(keys, 2)?),
    ]);
    Ok(config)
}

fn weights_sum_to_one(keys: &Keys, default: bool) -> Result<bool> {
    Ok(keys.flag("expert_weights_norm")?.unwrap_or(default))
}

/// OLMo 2, or where its layers slide OLMo 3.
pub fn olmo2(keys: &Keys) -> Result<Pairs> {
    let mut config = rms(keys)?;
    if let Some(length) = window(keys)? {
        config.extend([
            ("model_type", json!("olmo3")),
            ("sliding_window", json!(length)),
            ("layer_types", sliding_by_layer(keys, 4)?),
        ]);
    }
    Ok(config)
}

pub fn granite(keys: &Keys) -> Result<Pairs> {
    let mut config = rms(keys)?;
    refuse_partial(keys, &config)?;
    config.extend([
        ("attention_multiplier", json!(keys.needed_number("attention.scale")?)),
        ("embedding_multiplier", json!(keys.number("embedding_scale")?)),
        ("residual_multiplier", json!(keys.number("residual_scale")?)),
        ("logits_scaling", json!(keys.number("logit_scale")?)),
        ("attention_bias", json!(keys.has_tensor("blk.0.attn_output.bias"))),
        ("mlp_bias", json!(keys.has_tensor("blk.0.ffn_up.bias"))),
    ]);
    Ok(config)
}

pub fn glm(keys: &Keys) -> Result<Pairs> {
    let mut config = whole_heads(rms(keys)?);
    let has_bias = ["attn_q", "attn_qkv"].map(|name| keys.has_tensor(&format!("blk.0.{name}.bias")));
    config.push(("attention_bias", json!(has_bias.contains(&true))));
    Ok(config)
}

pub fn phi2(keys: &Keys) -> Result<Pairs> {
    let mut config = whole_heads(rotary(keys)?);
    let eps = keys.needed_number("attention.layer_norm_epsilon")?;
    config.push(("layer_norm_eps", json!(eps)));
    Ok(config)
}

/// Falcon, of which no key says how heads are grouped or how many norms a block has.
pub fn falcon(keys: &Keys) -> Result<Pairs> {
    let head_count = keys.needed("attention.head_count")?;
    let kv_head_count = keys.count("attention.head_count_kv")?.unwrap_or(head_count);
    let has_two_norms = keys.has_tensor("blk.0.attn_norm_2.weight");
    let is_grouped = has_two_norms || (kv_head_count != 1 && kv_head_count != head_count);
    let mut config = rotary(keys)?;
    for (key, _) in &mut config {
        if *key == "intermediate_size" {
            *key = "ffn_hidden_size";
        }
    }
    config.retain(|(key, _)| *key != "num_key_value_heads");
    config.extend([
        ("new_decoder_architecture", json!(is_grouped)),
        ("multi_query", json!(kv_head_count == 1)),
        ("num_kv_heads", json!(kv_head_count)),
        ("num_ln_in_parallel_attn", json!(if has_two_norms { 2 } else { 1 })),
        ("bias", json!(keys.has_tensor("blk.0.attn_output.bias"))),
        (
            "layer_norm_epsilon",
            json!(keys.needed_number("attention.layer_norm_epsilon")?),
        ),
    ]);
    Ok(config)
}

/// Where the file says nothing, all of a head rotates, whatever the family takes for absent.
fn whole_heads(mut config: Pairs) -> Pairs {
    for (key, value) in &mut config {
        if *key == "partial_rotary_factor" && value.is_null() {
            *value = json!(1.0);
        }
    }
    config
}

pub fn olmo(keys: &Keys) -> Result<Pairs> {
    let mut config = rotary(keys)?;
    refuse_partial(keys, &config)?;
    if keys.needed_number("attention.layer_norm_epsilon")? != 1e-5 {
        return Err(keys.refuse("attention.layer_norm_epsilon", "is not 1e-5, which alone is computed"));
    }
    let clip = keys.number("attention.clamp_kqv")?;
    config.push(("clip_qkv", json!(clip.filter(|clip| *clip != 0.0))));
    Ok(config)
}

/// Rows stored in pairs are those of a whole head.
fn refuse_partial(keys: &Keys, config: &Pairs) -> Result<()> {
    match config
        .iter()
        .any(|(key, value)| *key == "partial_rotary_factor" && !value.is_null())
    {
        true => Err(keys.refuse(
            "rope.dimension_count",
            "is not the length of a head, which is not computed",
        )),
        false => Ok(()),
    }
}

pub fn gemma2(keys: &Keys) -> Result<Pairs> {
    let mut config = rms(keys)?;
    config.extend([
        ("attn_logit_softcapping", json!(keys.number("attn_logit_softcapping")?)),
        (
            "final_logit_softcapping",
            json!(keys.number("final_logit_softcapping")?),
        ),
        ("sliding_window", json!(window(keys)?)),
        ("query_pre_attn_scalar", json!(query_scalar(keys, 46)?)),
    ]);
    Ok(config)
}

pub fn gemma3(keys: &Keys) -> Result<Pairs> {
    let mut config = rms(keys)?;
    config.extend([
        (
            "final_logit_softcapping",
            json!(keys.number("final_logit_softcapping")?),
        ),
        ("sliding_window", json!(keys.needed("attention.sliding_window")?)),
        ("rope_local_base_freq", json!(keys.number("rope.freq_base_swa")?)),
        ("query_pre_attn_scalar", json!(query_scalar(keys, 62)?)),
        ("layer_types", sliding_by_layer(keys, 6)?),
    ]);
    Ok(config)
}

/// Which layers slide: as the file lists them, or all but every so many.
fn sliding_by_layer(keys: &Keys, default: usize) -> Result<Json> {
    const KEY: &str = "attention.sliding_window_pattern";
    let word = |slides: bool| if slides { "sliding_attention" } else { "full_attention" };
    if let Some(Value::Flags(slide)) = keys.get(KEY).1 {
        return Ok(slide.iter().map(|slides| word(*slides)).collect());
    }
    let interval = keys.count(KEY)?.unwrap_or(default).max(1);
    // BOUND: a decoder of more layers is refused
    let layers = 1..=keys.needed("block_count")?.min(1 << 10);
    Ok(layers.map(|layer| word(!layer.is_multiple_of(interval))).collect())
}

/// The file does not say what scores are divided by (its square root): it is a head's length in every published size but the
/// largest, which its number of layers tells.
fn query_scalar(keys: &Keys, layers_of_the_largest: usize) -> Result<usize> {
    match keys.needed("block_count")? == layers_of_the_largest {
        true => Ok(keys.needed("embedding_length")? / keys.needed("attention.head_count")?.max(1)),
        false => keys.needed("attention.key_length"),
    }
}

pub fn phi3(keys: &Keys) -> Result<Pairs> {
    let mut config = rms(keys)?;
    let original = keys.count("rope.scaling.original_context_length")?;
    config.push(("original_max_position_embeddings", json!(original)));
    config.push(("sliding_window", json!(window(keys)?)));
    Ok(config)
}

pub fn gpt2(keys: &Keys) -> Result<Pairs> {
    let head_count = keys.needed("attention.head_count")?;
    if keys
        .count("attention.head_count_kv")?
        .is_some_and(|count| count != head_count)
    {
        return Err(keys.refuse(
            "attention.head_count_kv",
            "differs from head_count, which is not computed",
        ));
    }
    Ok(vec![
        ("n_embd", json!(keys.needed("embedding_length")?)),
        ("n_layer", json!(keys.needed("block_count")?)),
        ("n_head", json!(head_count)),
        ("n_inner", json!(keys.needed("feed_forward_length")?)),
        ("n_positions", json!(keys.needed("context_length")?)),
        (
            "layer_norm_epsilon",
            json!(keys.needed_number("attention.layer_norm_epsilon")?),
        ),
    ])
}

pub fn gpt_neox(keys: &Keys) -> Result<Pairs> {
    let mut config = whole_heads(rotary(keys)?);
    let parallel = keys.flag("use_parallel_residual")?;
    let parallel = parallel.ok_or_else(|| keys.refuse("use_parallel_residual", "is missing"))?;
    let eps = keys.needed_number("attention.layer_norm_epsilon")?;
    // as many as query heads, and no key of the family
    config.retain(|(key, _)| *key != "num_key_value_heads");
    config.extend([
        ("use_parallel_residual", json!(parallel)),
        ("layer_norm_eps", json!(eps)),
    ]);
    Ok(config)
}

/// The sliding window; 0 stands for none.
fn window(keys: &Keys) -> Result<Option<usize>> {
    Ok(keys.count("attention.sliding_window")?.filter(|length| *length > 0))
}

/// `rope_scaling` from the keys, or from tensors of factors: Llama 3's and LongRope's.
fn rope_scaling(keys: &Keys) -> Result<Json> {
    let kind = keys.text("rope.scaling.type")?.unwrap_or("none");
    let factor = keys.number("rope.scaling.factor")?;
    let factor = factor
        .or(keys.number("rope.scale_linear")?)
        .filter(|factor| *factor != 1.0);
    let attention_factor = keys.number("rope.scaling.attn_factor")?;
    let original = keys.count("rope.scaling.original_context_length")?;
    let context = keys.needed("context_length")?;
    let long = keys.factors("rope_factors_long.weight")?;
    let short = keys.factors("rope_factors_short.weight")?;
    if let (Some(long), Some(short)) = (long, short) {
        return Ok(
            json!({"rope_type": "longrope", "short_factor": short, "long_factor": long,
            "attention_factor": attention_factor, "original_max_position_embeddings": original.unwrap_or(context)}),
        );
    }
    if attention_factor.is_some_and(|factor| factor != 1.0) {
        return Err(keys.refuse("rope.scaling.attn_factor", "stands without tensors of factors"));
    }
    match (keys.factors("rope_freqs.weight")?, kind, factor) {
        // what Llama 3 divides each frequency by, at every length
        (Some(factors), "none", None) => Ok(
            json!({"rope_type": "longrope", "short_factor": factors, "long_factor": factors,
            "attention_factor": 1.0, "original_max_position_embeddings": context}),
        ),
        (None, "none" | "linear", None) => Ok(Json::Null),
        (None, "none" | "linear", Some(factor)) => Ok(json!({"rope_type": "linear", "factor": factor})),
        (None, "yarn", factor) => yarn(keys, factor.unwrap_or(1.0), original.unwrap_or(context)),
        (None, kind, _) => Err(keys.refuse("rope.scaling.type", &format!("= {} is not computed", shown(kind)))),
        (Some(_), ..) => Err(keys.refuse("rope.scaling", "and the tensor rope_freqs contradict each other")),
    }
}

/// What the file does not say, transformers takes as the format's own program does.
fn yarn(keys: &Keys, factor: f64, original: usize) -> Result<Json> {
    if keys
        .number("rope.scaling.yarn_ext_factor")?
        .is_some_and(|share| share != 1.0)
    {
        return Err(keys.refuse("rope.scaling.yarn_ext_factor", "is not 1, which alone is computed"));
    }
    let number = |word: &str| keys.number(&format!("rope.scaling.yarn_{word}"));
    Ok(
        json!({"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original,
        "beta_fast": number("beta_fast")?, "beta_slow": number("beta_slow")?, "attention_factor": number("attn_factor")?}),
    )
}
