//! What flags, recipe and defaults decide together.

use crate::cli::Args;
use crate::recipe::{Lora, Recipe, Settings};

impl Settings {
    /// Flags over the recipe over the defaults. `position_count` is the longest sequence that the model takes.
    pub fn resolve(args: &Args, position_count: usize) -> Self {
        let mut settings = Self::of(args.recipe);
        if args.recipe.is_none() {
            settings.max_length = settings.max_length.min(position_count);
        }
        settings.lora = lora(args);
        if settings.lora.is_some() && args.recipe.is_none() {
            settings.lr = 2e-4;
        }
        over(&mut settings.batch_size, args.batch_size.map(|n| n as usize));
        settings.micro_batch = args.micro_batch.map_or(settings.batch_size, |n| n as usize);
        settings.slots = args.slots as usize;
        settings.micro_batch = settings.micro_batch.min(settings.batch_size.div_ceil(settings.slots));
        over(&mut settings.epochs, args.epochs);
        over(&mut settings.lr, args.lr);
        over(&mut settings.schedule, args.schedule);
        over(&mut settings.warmup, args.warmup);
        over(&mut settings.weight_decay, args.weight_decay);
        over(&mut settings.beta1, args.beta1);
        over(&mut settings.beta2, args.beta2);
        over(&mut settings.eps, args.eps);
        over(&mut settings.clip, args.clip);
        over(&mut settings.max_length, args.max_length.map(|n| n as usize));
        settings
    }
}

fn over<T>(setting: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *setting = value;
    }
}

fn lora(args: &Args) -> Option<Lora> {
    let is_large = args.recipe == Some(Recipe::Tulu3Large);
    if args.full || !(args.lora || is_large) {
        return None;
    }
    let rank = args
        .lora_rank
        .map_or(if is_large { 64 } else { 16 }, |rank| rank as usize);
    Some(Lora {
        rank,
        alpha: args.lora_alpha.unwrap_or(2.0 * rank as f64),
        targets: args.lora_targets.clone(),
    })
}
