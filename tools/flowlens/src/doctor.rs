//! What this machine has that the tools can use.

use crate::commands::TOOLS;
use crate::report::Finding;
use half::bf16;
use process::Sibling;
use products::{Precision, family};
use std::path::Path;
use std::{env, fs, thread};

/// What the products look for, as Linux calls it.
const FEATURES: [&str; 6] = ["avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16"];
/// Where models of the hub lie (man flowlens, MODELS).
const VARIABLES: [&str; 2] = ["HF_HUB_CACHE", "HF_HOME"];

pub fn findings() -> Vec<Finding> {
    let mut found = vec![
        note("version", version()),
        note(
            "threads",
            thread::available_parallelism().map_or(1, usize::from).to_string(),
        ),
        note("memory", memory()),
        note("processor", processor()),
        note("kernel f32", family::<f32>(Precision::Full).into()),
        note("kernel f32, precision medium", family::<f32>(Precision::Medium).into()),
        note("kernel bf16", family::<bf16>(Precision::Full).into()),
        note("NVIDIA driver", driver()),
        note("examples", examples()),
    ];
    found.extend(VARIABLES.map(|name| note(name, variable(name))));
    found.extend(TOOLS.map(|(_, tool)| of_tool(tool)));
    found
}

fn note(subject: &str, value: String) -> Finding {
    Finding {
        subject: subject.into(),
        value,
        fine: true,
    }
}

fn version() -> String {
    match process::REVISION {
        Some(revision) => format!("{} ({revision})", process::VERSION),
        None => process::VERSION.into(),
    }
}

/// The line of a file of Linux that begins with `key`, behind its colon.
fn line_of(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

fn memory() -> String {
    let of = |key| line_of("/proc/meminfo", key).unwrap_or_else(|| "unknown".into());
    format!("{} in all, {} to be had", of("MemTotal"), of("MemAvailable"))
}

/// The processor, and which of the features that products look for it has.
fn processor() -> String {
    let name = line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| env::consts::ARCH.into());
    let flags = line_of("/proc/cpuinfo", "flags").unwrap_or_default();
    let has: Vec<&str> = FEATURES
        .into_iter()
        .filter(|feature| flags.split(' ').any(|flag| flag == *feature))
        .collect();
    format!(
        "{name}: {}",
        if has.is_empty() {
            "no vector unit that is used".into()
        } else {
            has.join(" ")
        }
    )
}

fn driver() -> String {
    let path = "/proc/driver/nvidia/version";
    match Path::new(path).exists() {
        true => line_of(path, "NVRM version").unwrap_or_else(|| "there".into()),
        false => "none".into(),
    }
}

/// Where an installation keeps the cookbook and its little model: `share/flowlens` beside the `bin` of this program.
fn examples() -> String {
    let own = env::current_exe().ok();
    let place = own.as_deref().and_then(Path::parent).and_then(Path::parent);
    place
        .map(|prefix| prefix.join("share/flowlens"))
        .filter(|directory| directory.is_dir())
        .map_or_else(|| "not installed".into(), |directory| directory.display().to_string())
}

fn variable(name: &str) -> String {
    env::var_os(name).map_or_else(|| "not set".into(), |value| value.to_string_lossy().into_owned())
}

/// Whether a tool is there, and of this version.
fn of_tool(tool: &'static str) -> Finding {
    let printed = Sibling::new(tool).arg("--version").output();
    let (value, fine) = match printed {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).trim().to_string();
            let fine = text == format!("{tool} {}", process::VERSION);
            (text, fine)
        }
        Err(cause) => (cause.to_string(), false),
    };
    Finding {
        subject: tool.into(),
        value,
        fine,
    }
}
