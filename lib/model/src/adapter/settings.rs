//! adapter_config.json, as PEFT writes it. A key that is neither read here nor known to leave the weights alone is refused by name.

use serde_json::{Map, Value};

use crate::error::{Error, Result, shown};

pub const FILE: &str = "adapter_config.json";

/// Keys that say nothing about the merged weights: which modules were chosen is told by the tensors that are there.
const SILENT_KEYS: [&str; 18] = [
    "task_type",
    "auto_mapping",
    "revision",
    "inference_mode",
    "lora_dropout",
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "layers_to_transform",
    "layers_pattern",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
    "eva_config",
    "bias",
    "fan_in_fan_out",
    "ensure_weight_tying",
];
/// Beginnings that leave the base as it is.
const BEGINNINGS: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// What an adapter's tensors mean.
#[derive(Debug)]
pub struct Settings {
    /// The model it was made for, as its maker called it.
    pub base: String,
    pub decomposes: bool,
    rank: Pattern,
    alpha: Pattern,
    /// Divides by the root of the rank instead of the rank.
    rank_stabilised: bool,
}

/// A number for all modules but some.
#[derive(Debug)]
struct Pattern {
    all: f64,
    some: Vec<(String, f64)>,
}

impl Settings {
    pub fn parse(text: &[u8]) -> Result<Self> {
        let map = json::document(text).map_err(|cause| Error::file(FILE, cause))?;
        match map.get("peft_type").and_then(Value::as_str) {
            Some("LORA") => {}
            other => {
                return Err(Error::file(
                    FILE,
                    format!("peft_type = {}, expected LORA", shown(other.unwrap_or_default())),
                ));
            }
        }
        check_beginning(&map)?;
        refuse_unknown(&map)?;
        Ok(Self {
            base: map
                .get("base_model_name_or_path")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            decomposes: flag(&map, "use_dora")?,
            rank_stabilised: flag(&map, "use_rslora")?,
            rank: Pattern::read(&map, "r", "rank_pattern")?,
            alpha: Pattern::read(&map, "lora_alpha", "alpha_pattern")?,
        })
    }

    pub fn rank(&self, module: &str) -> usize {
        self.rank.of(module) as usize
    }

    /// What the product of the factors is multiplied by.
    pub fn scale(&self, module: &str) -> f64 {
        let rank = self.rank(module) as f64;
        self.alpha.of(module) / if self.rank_stabilised { rank.sqrt() } else { rank }
    }
}

impl Pattern {
    fn read(map: &Map<String, Value>, key: &str, pattern_key: &str) -> Result<Self> {
        let all = map
            .get(key)
            .ok_or_else(|| Error::file(FILE, format!("{key} is missing")))?;
        let some = match map.get(pattern_key) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(some)) => some
                .iter()
                .map(|(name, value)| Ok((plain(name)?, positive(pattern_key, value)?)))
                .collect::<Result<_>>()?,
            Some(_) => return Err(Error::file(FILE, format!("{pattern_key} is no object"))),
        };
        let all = positive(key, all)?;
        Ok(Self { all, some })
    }

    /// The first name that a module has, or ends in, decides.
    fn of(&self, module: &str) -> f64 {
        let is_named = |name: &str| match name.strip_prefix('^') {
            Some(whole) => module == whole,
            None => module
                .strip_suffix(name)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        };
        let found = self.some.iter().find(|(name, _)| is_named(name));
        found.map_or(self.all, |(_, value)| *value)
    }
}

/// A name of modules; PEFT would take any expression.
fn plain(name: &str) -> Result<String> {
    let inner = name.strip_prefix('^').unwrap_or(name);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    match !inner.is_empty() && inner.bytes().all(is_plain) {
        true => Ok(name.to_owned()),
        false => Err(Error::file(
            FILE,
            format!("the pattern {} is not the name of a module", shown(name)),
        )),
    }
}

fn positive(key: &str, value: &Value) -> Result<f64> {
    match value.as_f64() {
        Some(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err(Error::file(
            FILE,
            format!("{key} = {}, expected a number above 0", said(value)),
        )),
    }
}

/// BOUND: of a long value, its kind alone.
fn said(value: &Value) -> String {
    match value.to_string() {
        text if text.len() <= 80 => text,
        _ => "a long value".into(),
    }
}

fn flag(map: &Map<String, Value>, key: &str) -> Result<bool> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(Error::file(
            FILE,
            format!("{key} = {}, expected true or false", said(other)),
        )),
    }
}

fn check_beginning(map: &Map<String, Value>) -> Result<()> {
    match map.get("init_lora_weights") {
        None | Some(Value::Null | Value::Bool(_)) => Ok(()),
        Some(Value::String(name)) if BEGINNINGS.contains(&name.as_str()) => Ok(()),
        Some(other) => {
            let cause = format!(
                "init_lora_weights = {} changes the base too, which is not read",
                said(other)
            );
            Err(Error::file(FILE, cause))
        }
    }
}

fn refuse_unknown(map: &Map<String, Value>) -> Result<()> {
    const READ: [&str; 9] = [
        "peft_type",
        "base_model_name_or_path",
        "r",
        "lora_alpha",
        "rank_pattern",
        "alpha_pattern",
        "use_rslora",
        "use_dora",
        "init_lora_weights",
    ];
    let is_nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    let is_known = |key: &str| READ.contains(&key) || SILENT_KEYS.contains(&key);
    match map.iter().find(|(key, value)| !is_known(key) && !is_nothing(value)) {
        None => Ok(()),
        Some((key, _)) => {
            let cause = format!("{} is not known here and may change the weights", shown(key));
            Err(Error::file(FILE, cause))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &str) -> Result<Settings> {
        Settings::parse(format!(r#"{{"peft_type":"LORA","r":8,"lora_alpha":16{more}}}"#).as_bytes())
    }

    #[test]
    fn rank_and_scale_follow_the_first_pattern_that_names_a_module() {
        let settings = parse(r#","rank_pattern":{"0.q_proj":4,"^a.q_proj":2},"alpha_pattern":{"q_proj":12}"#).unwrap();
        assert_eq!((settings.rank("l.0.q_proj"), settings.scale("l.0.q_proj")), (4, 3.0));
        assert_eq!((settings.rank("a.q_proj"), settings.scale("a.q_proj")), (2, 6.0));
        assert_eq!((settings.rank("b.a.q_proj"), settings.scale("b.a.q_proj")), (8, 1.5));
        assert_eq!((settings.rank("l.10.v_proj"), settings.scale("l.10.v_proj")), (8, 2.0));
        let settings = parse(r#","use_rslora":true,"alpha_pattern":{}"#).unwrap();
        assert_eq!(settings.scale("l.0.q_proj"), 16.0 / 8f64.sqrt());
    }

    #[test]
    fn what_changes_the_weights_and_is_not_known_is_refused_by_name() {
        for (more, expected) in [
            (
                r#","layer_replication":[[0,2]]"#,
                "\"layer_replication\" is not known here",
            ),
            (r#","lora_bias":true"#, "\"lora_bias\" is not known here"),
            (
                r#","init_lora_weights":"pissa""#,
                "init_lora_weights = \"pissa\" changes the base too",
            ),
            (
                r#","rank_pattern":{"q|v":4}"#,
                "the pattern \"q|v\" is not the name of a module",
            ),
            (r#","use_dora":1"#, "use_dora = 1, expected true or false"),
            (
                r#","alpha_pattern":{"q":-1}"#,
                "alpha_pattern = -1, expected a number above 0",
            ),
        ] {
            let said = parse(more).unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
        }
        let said = Settings::parse(br#"{"peft_type":"IA3"}"#).unwrap_err().to_string();
        assert!(said.contains("expected LORA"), "{said}");
    }
}
