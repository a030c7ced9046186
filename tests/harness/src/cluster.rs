//! A real Slurm of one node, for as long as it lives.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Run, program, skip, temp_dir, workspace};

pub struct Cluster {
    directory: TempDir,
}

impl Cluster {
    /// Starts it where Slurm and munge are installed, and this is root.
    #[track_caller]
    pub fn start() -> Option<Cluster> {
        for name in ["slurmctld", "slurmd", "munged"] {
            program(name)?;
        }
        if std::fs::metadata("/proc/self").map_or(1, |own| own.uid()) != 0 {
            skip("root", "only root may start a Slurm");
            return None;
        }
        let cluster = Cluster { directory: temp_dir() };
        cluster.script("start").output().expect(0);
        Some(cluster)
    }

    fn script(&self, action: &str) -> Run {
        Run::new(workspace().join("scripts/cluster"))
            .arg(action)
            .arg(self.directory.path())
    }

    fn settings(&self) -> PathBuf {
        self.directory.path().join("slurm.conf")
    }

    /// A run that finds this cluster.
    pub fn run(&self, program: &str) -> Run {
        self.over(Run::new(program))
    }

    pub fn over(&self, run: Run) -> Run {
        run.env("SLURM_CONF", self.settings())
    }

    /// Waits until no job is left.
    pub fn wait(&self, deadline: Duration) {
        let begun = Instant::now();
        while !self
            .run("squeue")
            .arg("--noheader")
            .output()
            .expect(0)
            .stdout
            .is_empty()
        {
            assert!(begun.elapsed() < deadline, "jobs are left after {deadline:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.script("stop").output();
    }
}
