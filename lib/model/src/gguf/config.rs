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
    match window(keys)? {
        // Mistral goes by the same name
        Some(length) => config.extend([("model_type", json!("mistral")), ("sliding_window", json!(length))]),
        None => config.extend([
            ("attention_bias", json!(keys.has_tensor("blk.0.attn_output.bias"))),
            ("mlp_bias", json!(keys.has_tensor("blk.0.ffn_up.bias"))),
        ]),
    }
    Ok(config)
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
        sliding_layers(keys)?,
    ]);
    Ok(config)
}

/// Every how many layers one sees everything, or which of them slide.
fn sliding_layers(keys: &Keys) -> Result<(&'static str, Json)> {
    const KEY: &str = "attention.sliding_window_pattern";
    let word = |slides: bool| if slides { "sliding_attention" } else { "full_attention" };
    match keys.get(KEY).1 {
        Some(Value::Flags(slide)) => Ok(("layer_types", slide.iter().map(|slides| word(*slides)).collect())),
        _ => Ok(("sliding_window_pattern", json!(keys.count(KEY)?.unwrap_or(6)))),
    }
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
    let mut config = rotary(keys)?;
    let parallel = keys.flag("use_parallel_residual")?;
    let parallel = parallel.ok_or_else(|| keys.refuse("use_parallel_residual", "is missing"))?;
    let eps = keys.needed_number("attention.layer_norm_epsilon")?;
    for (key, value) in &mut config {
        // what a family takes where nothing is said is not the whole head here
        if *key == "partial_rotary_factor" && value.is_null() {
            *value = json!(1.0);
        }
    }
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
        (None, kind, _) => Err(keys.refuse("rope.scaling.type", &format!("= {} is not computed", shown(kind)))),
        (Some(_), ..) => Err(keys.refuse("rope.scaling", "and the tensor rope_freqs contradict each other")),
    }
}
