//! Plans: pure descriptions of what a run will do. Printed by `--plan`, hashed into every output, compared on resume.

use std::io::Write;

use serde::Serialize;
use serde_json::Value;

use crate::exit::{Error, Outcome, Result, ResultExt};
use crate::stdout::stdout;
use crate::text::sha256;

/// `sha256:<hex>` of the plan with sorted keys, without the machine. Leave out what cannot change bits: shard, threads, paths.
pub fn digest(plan: &impl Serialize) -> Result<String> {
    let value = serde_json::to_value(plan).map_err(|cause| Error::bug("plan", cause))?;
    let mut text = String::new();
    canonical(&without_machine(value), &mut text);
    Ok(sha256(text.as_bytes()))
}

/// Takes out of a plan, or of the keys of a `begin` record, what names the machine and not the work: `compute.device` and
/// `compute.kernel`. Shards of two machines have one plan digest; whether they may meet is for [`MixedCompute`] to say.
pub fn without_machine(mut plan: Value) -> Value {
    if let Some(Value::Object(compute)) = plan.get_mut("compute") {
        compute.retain(|key, _| key != "device" && key != "kernel");
    }
    plan
}

/// Whether the results of different machines may stand in one output.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct MixedCompute {
    /// Put together what another device or kernel computed: the last bits may differ (see `compute` in the output).
    #[arg(long)]
    pub allow_mixed_compute: bool,
}

impl MixedCompute {
    /// A plan, or the keys of a `begin` record, in the form in which two of them must be equal.
    pub fn comparable(self, plan: Value) -> Value {
        match self.allow_mixed_compute {
            true => without_machine(plan),
            false => plan,
        }
    }
}

/// Prints a plan for `--plan`.
pub fn print(plan: &impl Serialize) -> Result<Outcome> {
    let mut out = stdout();
    let text = serde_json::to_string_pretty(plan).map_err(|cause| Error::bug("plan", cause))?;
    writeln!(out, "{text}").at("stdout")?;
    out.finish()?;
    Ok(Outcome::Complete)
}

/// The first place where two plans differ, as `key: was X, is Y`.
pub fn difference(was: &Value, is: &Value) -> Option<String> {
    differ("", was, is)
}

fn differ(at: &str, was: &Value, is: &Value) -> Option<String> {
    let inner = |key: &str| {
        if at.is_empty() {
            key.to_string()
        } else {
            format!("{at}.{key}")
        }
    };
    match (was, is) {
        (Value::Object(was), Value::Object(is)) => {
            let mut keys: Vec<&String> = was.keys().chain(is.keys()).collect();
            keys.sort();
            keys.dedup();
            keys.into_iter().find_map(|key| {
                differ(
                    &inner(key),
                    was.get(key).unwrap_or(&Value::Null),
                    is.get(key).unwrap_or(&Value::Null),
                )
            })
        }
        (was, is) if was == is => None,
        (was, is) => Some(format!("{at}: was {was}, is {is}")),
    }
}

fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            text.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                canonical(&map[key], text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                canonical(item, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_machine_is_in_the_plan_and_not_in_its_digest() {
        let plan = |device: &str, kernel: &str, dtype: &str| json!({"seed": 1, "compute": {"device": device, "dtype": dtype, "kernel": kernel}});
        let (one, other) = (plan("cpu", "avx512", "f32"), plan("cuda", "cuda", "f32"));
        assert_eq!(digest(&one).unwrap(), digest(&other).unwrap());
        assert_ne!(digest(&one).unwrap(), digest(&plan("cpu", "avx512", "bf16")).unwrap());
        let compare = |allow_mixed_compute| {
            let mixed = MixedCompute { allow_mixed_compute };
            difference(&mixed.comparable(one.clone()), &mixed.comparable(other.clone()))
        };
        assert_eq!(compare(false).unwrap(), r#"compute.device: was "cpu", is "cuda""#);
        assert_eq!(compare(true), None);
    }

    #[test]
    fn the_order_of_keys_does_not_change_the_digest() {
        let one = digest(&json!({"a": 1, "b": {"c": [1, 2], "d": "x"}})).unwrap();
        let other = digest(&json!({"b": {"d": "x", "c": [1, 2]}, "a": 1})).unwrap();
        assert_eq!(one, other);
        assert_ne!(one, digest(&json!({"a": 1, "b": {"c": [2, 1], "d": "x"}})).unwrap());
    }

    #[test]
    fn names_the_first_difference() {
        let was = json!({"model": {"digest": "a"}, "seed": 1});
        let is = json!({"model": {"digest": "b"}, "seed": 2});
        assert_eq!(
            difference(&was, &is).as_deref(),
            Some("model.digest: was \"a\", is \"b\"")
        );
        assert_eq!(difference(&was, &was), None);
    }
}
