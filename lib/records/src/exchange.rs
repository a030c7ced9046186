//! Results as other programs keep them: the file that lm-evaluation-harness writes, and the entries of a model's `.eval_results` on the
//! Hugging Face Hub. Written, never read back.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Map, Value, json};

/// What was measured of a model.
pub struct Results {
    pub model_name: String,
    pub tasks: Vec<Task>,
}

/// A benchmark, or a part of one.
pub struct Task {
    pub name: String,
    /// The benchmark of a part.
    pub parent: Option<String>,
    pub count: u64,
    pub measures: Vec<Measure>,
}

/// A figure. Two of a name are told apart by who read the answers.
pub struct Measure {
    pub name: String,
    /// A judge or an extractor, as the harness has filters; `none` where there is one reading.
    pub filter: String,
    pub value: f64,
    /// Of a mean of independent answers.
    pub stderr: Option<f64>,
    /// None where neither is better.
    pub higher_is_better: Option<bool>,
}

impl Measure {
    /// A share of `count` answers; none where there are none.
    pub fn share(name: &str, filter: &str, value: Option<f64>, count: u64) -> Option<Measure> {
        let value = value?;
        Some(Measure {
            name: name.to_owned(),
            filter: filter.to_owned(),
            value,
            stderr: (count > 1).then(|| (value * (1.0 - value) / (count - 1) as f64).sqrt()),
            higher_is_better: None,
        })
    }

    pub fn better(self, higher_is_better: bool) -> Measure {
        Measure {
            higher_is_better: Some(higher_is_better),
            ..self
        }
    }

    fn key(&self) -> String {
        format!("{},{}", self.name, self.filter)
    }
}

impl Results {
    /// As `results_*.json` of lm-evaluation-harness: what its own reader and table take. What only a run of the harness knows is left out.
    pub fn to_lm_eval(&self) -> Value {
        let by_task = |of: &dyn Fn(&Task) -> Value| -> Map<String, Value> {
            self.tasks.iter().map(|task| (task.name.clone(), of(task))).collect()
        };
        json!({
            "results": by_task(&lm_eval_results),
            "group_subtasks": self.group_subtasks(),
            "configs": by_task(&|task| json!({"task": task.name})),
            "versions": {},
            "n-shot": {},
            "higher_is_better": by_task(&higher_is_better),
            "n-samples": by_task(&|task| json!({"original": task.count, "effective": task.count})),
            "config": {"model": "flowlens", "model_args": {"pretrained": self.model_name}},
            "model_source": "flowlens",
            "model_name": self.model_name,
            "model_name_sanitized": sanitised(&self.model_name),
        })
    }

    fn group_subtasks(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for task in &self.tasks {
            match &task.parent {
                None => groups.entry(&task.name).or_default(),
                Some(parent) => {
                    let parts = groups.entry(parent).or_default();
                    parts.push(&task.name);
                    continue;
                }
            };
        }
        groups
    }

    /// As `.eval_results/*.yaml`: an entry for each of `entries`, in per cent as its boards have them. The error names what there is.
    pub fn to_eval_results(&self, entries: &[HubEntry]) -> Result<String, String> {
        let mut text = String::new();
        for entry in entries {
            let measure = self.find(&entry.task, &entry.measure)?;
            // A JSON text is a YAML text.
            let quoted = |text: &str| Value::from(text).to_string();
            let _ = writeln!(
                text,
                "- dataset:\n    id: {}\n    task_id: {}",
                quoted(&entry.dataset),
                quoted(&entry.task_id)
            );
            if let Some(revision) = &entry.revision {
                let _ = writeln!(text, "    revision: {}", quoted(revision));
            }
            let _ = writeln!(text, "  value: {}", percent(measure.value));
            let _ = writeln!(text, "  notes: {}", quoted(&format!("flowlens {}", measure.key())));
        }
        Ok(text)
    }

    fn find(&self, task: &str, measure: &str) -> Result<&Measure, String> {
        let mut names = self.tasks.iter().map(|task| task.name.as_str());
        let known = |names: &mut dyn Iterator<Item = &str>| names.collect::<Vec<_>>().join(" ");
        let task = self.tasks.iter().find(|known| known.name == task);
        let task = task.ok_or_else(|| format!("no such task here; there are {}", known(&mut names)))?;
        let found = task.measures.iter().find(|known| known.key() == measure);
        found.ok_or_else(|| {
            let keys: Vec<String> = task.measures.iter().map(Measure::key).collect();
            format!("{} has no measure {measure}; it has {}", task.name, keys.join(" "))
        })
    }
}

/// To four digits behind the point, which is more than any board shows.
fn percent(share: f64) -> f64 {
    (share * 1e6).round() / 1e4
}

fn lm_eval_results(task: &Task) -> Value {
    let mut found = Map::new();
    found.insert("name".into(), task.name.as_str().into());
    found.insert("alias".into(), task.name.as_str().into());
    found.insert("sample_len".into(), task.count.into());
    for measure in &task.measures {
        found.insert(measure.key(), measure.value.into());
        let stderr = measure.stderr.map_or(Value::from("N/A"), Value::from);
        found.insert(format!("{}_stderr,{}", measure.name, measure.filter), stderr);
    }
    found.into()
}

fn higher_is_better(task: &Task) -> Value {
    let named = |measure: &Measure| (measure.name.clone(), measure.higher_is_better.into());
    task.measures.iter().map(named).collect::<Map<String, Value>>().into()
}

/// As the harness names its folders.
fn sanitised(name: &str) -> String {
    let is_kept = |c: char| !matches!(c, '"' | '<' | '>' | ':' | '/' | '|' | '\\' | '?' | '*' | '[' | ']');
    let mut text = String::new();
    for c in name.chars() {
        match is_kept(c) {
            true => text.push(c),
            false if text.ends_with("__") => {}
            false => text.push_str("__"),
        }
    }
    text
}

/// Which figure is which task of a benchmark on the Hub: `TASK:MEASURE=ORG/DATASET[@REVISION]:TASK_ID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HubEntry {
    task: String,
    measure: String,
    dataset: String,
    revision: Option<String>,
    task_id: String,
}

impl FromStr for HubEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<HubEntry, String> {
        let parts = || {
            let (own, hub) = text.split_once('=')?;
            let ((task, measure), (dataset, task_id)) = (own.split_once(':')?, hub.rsplit_once(':')?);
            let (dataset, revision) = match dataset.split_once('@') {
                Some((dataset, revision)) => (dataset, Some(revision)),
                None => (dataset, None),
            };
            let parts = [task, measure, dataset, task_id];
            let is_whole = parts.into_iter().chain(revision).all(|part| !part.is_empty()) && dataset.contains('/');
            is_whole.then(|| HubEntry {
                task: task.to_owned(),
                measure: measure.to_owned(),
                dataset: dataset.to_owned(),
                revision: revision.map(str::to_owned),
                task_id: task_id.to_owned(),
            })
        };
        parts().ok_or_else(|| "expected TASK:MEASURE,FILTER=ORG/DATASET[@REVISION]:TASK_ID".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let task = |name: &str, parent: Option<&str>| Task {
            name: name.to_owned(),
            parent: parent.map(str::to_owned),
            count: 101,
            measures: Measure::share("acc", "none", Some(0.5), 101).into_iter().collect(),
        };
        Results {
            model_name: "org/name".to_owned(),
            tasks: vec![task("b", None), task("b_1", Some("b"))],
        }
    }

    #[test]
    fn an_entry_of_the_hub_is_in_per_cent_and_says_what_it_is() {
        let entry: HubEntry = "b:acc,none=org/b@abc:default".parse().unwrap();
        let text = results().to_eval_results(&[entry]).unwrap();
        let wanted = "- dataset:\n    id: \"org/b\"\n    task_id: \"default\"\n    revision: \"abc\"\n  value: 50\n  notes: \"flowlens acc,none\"\n";
        assert_eq!(text, wanted);
        for (entry, said) in [
            ("c:acc,none=o/d:t", "there are b b_1"),
            ("b:f1,none=o/d:t", "it has acc,none"),
        ] {
            let entry: HubEntry = entry.parse().unwrap();
            assert!(results().to_eval_results(&[entry]).unwrap_err().contains(said));
        }
        for wrong in [
            "b=o/d:t",
            "b:acc",
            "b:acc=d:t",
            "b:acc=o/d",
            ":acc=o/d:t",
            "b:acc=o/d@:t",
        ] {
            assert!(wrong.parse::<HubEntry>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn parts_stand_under_their_benchmark_and_a_share_has_its_error() {
        let value = results().to_lm_eval();
        assert_eq!(value["group_subtasks"], json!({"b": ["b_1"]}));
        assert_eq!(value["results"]["b_1"]["acc,none"], 0.5);
        // sqrt(0.25 / 100)
        assert_eq!(value["results"]["b"]["acc_stderr,none"], 0.05);
        assert_eq!(value["model_name_sanitized"], "org__name");
        assert!(Measure::share("acc", "none", None, 5).is_none());
    }
}
