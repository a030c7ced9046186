//! The learning rate of every step.

use clap::ValueEnum;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleName {
    /// Falls to zero along a straight line.
    Linear,
    /// Falls to zero along half a cosine.
    Cosine,
    /// Stays.
    Constant,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Schedule {
    pub name: ScheduleName,
    pub peak: f64,
    pub warmup_steps: u64,
    pub steps: u64,
}

impl Schedule {
    /// The warm-up share is rounded up to whole steps, as transformers does.
    pub fn new(name: ScheduleName, peak: f64, warmup: f64, steps: u64) -> Self {
        Self {
            name,
            peak,
            warmup_steps: (warmup * steps as f64).ceil() as u64,
            steps,
        }
    }

    /// The rate of `step`, from 1. Like transformers' schedules, whose first warm-up step has rate 0 and whose last is not yet 0.
    pub fn rate(&self, step: u64) -> f64 {
        let done = step - 1;
        if done < self.warmup_steps {
            return self.peak * done as f64 / self.warmup_steps as f64;
        }
        let rest = (self.steps - self.warmup_steps).max(1) as f64;
        let progress = ((done - self.warmup_steps) as f64 / rest).min(1.0);
        match self.name {
            ScheduleName::Constant => self.peak,
            ScheduleName::Linear => self.peak * (1.0 - progress),
            ScheduleName::Cosine => self.peak * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_transformers() {
        // get_linear_schedule_with_warmup(num_warmup_steps=2, num_training_steps=6) and the cosine one
        let linear = Schedule::new(ScheduleName::Linear, 1.0, 0.3, 6);
        assert_eq!(linear.warmup_steps, 2);
        assert_eq!(
            (1..=6).map(|step| linear.rate(step)).collect::<Vec<_>>(),
            [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]
        );
        let cosine = Schedule::new(ScheduleName::Cosine, 2.0, 0.0, 4);
        assert!((cosine.rate(3) - 1.0).abs() < 1e-12 && cosine.rate(1) == 2.0);
        assert_eq!(Schedule::new(ScheduleName::Constant, 3.0, 0.0, 4).rate(4), 3.0);
    }
}
