//! The soft prompt's loss and gradient: against PyTorch's autograd (goldens made by scripts/parity/dro.py), against finite differences, and in
//! a world where one token asks for harm.

use std::collections::HashMap;
use std::path::Path;

use model::{Checkpoint, Decoder, Options, Tensor};
use serde::Deserialize;

use crate::heads::{self, Head};
use crate::objective::{Objective, Parts, Weights, sides};
use crate::prompts::Kind;
use crate::space::Space;
use crate::states;
use crate::trainer::{Query, Trainer, batches};

#[derive(Deserialize)]
struct Golden {
    family: String,
    weights: HashMap<String, f64>,
    questions: Vec<Question>,
    written_ids: Vec<u32>,
    soft_prompt: Vec<f64>,
    components: Vec<Vec<f64>>,
    heads: HashMap<String, [f64; 4]>,
    starts: Vec<Vec<f64>>,
    parts: HashMap<String, f64>,
    gradient: Vec<f64>,
}

#[derive(Deserialize)]
struct Question {
    ids: Vec<u32>,
    target: f64,
}

fn golden(family: &str) -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/{family}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A fixture model with a soft prompt of these rows, or of the embeddings of these ids.
fn with_rows(family: &str, rows: impl FnOnce(&Checkpoint) -> Tensor) -> (Decoder, Tensor) {
    let path = harness::workspace().join("tests/fixtures/models").join(family);
    let mut checkpoint = Checkpoint::open(&path, &Options::default()).unwrap();
    let rows = rows(&checkpoint);
    checkpoint.take_soft_prompt(rows.clone());
    (checkpoint.load().unwrap(), rows)
}

fn written(checkpoint: &Checkpoint, ids: &[u32]) -> Tensor {
    let config = checkpoint.config();
    let [table, _] = config.table_names();
    let table = checkpoint
        .weight(&table, &[config.vocab_size, config.hidden_size])
        .unwrap();
    table
        .index_select(&Tensor::new(ids, table.device()).unwrap(), 0)
        .unwrap()
}

fn given(golden: &Golden) -> Tensor {
    let values: Vec<f32> = golden.soft_prompt.iter().map(|&x| x as f32).collect();
    let rows = golden.written_ids.len();
    Tensor::from_vec(values, (rows, golden.soft_prompt.len() / rows), &model::Device::Cpu).unwrap()
}

impl Golden {
    fn objective(&self) -> Objective {
        let head = |name: &str| Head {
            weights: self.heads[name],
            bias: 0.7,
        };
        let width = self.components[0].len();
        Objective {
            space: Space::given(vec![0.1; width], self.components.clone()),
            refusal: head("refusal"),
            harmfulness: head("harmfulness"),
            weights: Weights {
                refusal: self.weights["refusal"],
                harmfulness: self.weights["harmfulness"],
                distance: self.weights["distance"],
            },
        }
    }

    fn queries(&self) -> Vec<Query> {
        let questions = self.questions.iter().zip(&self.starts);
        let query = |(question, start): (&Question, &Vec<f64>)| Query {
            ids: question.ids.clone(),
            kind: if question.target == 1.0 {
                Kind::Harmless
            } else {
                Kind::Harmful
            },
            start: start.clone(),
        };
        questions.map(query).collect()
    }
}

fn trainer<'m>(decoder: &'m Decoder, rows: &Tensor, objective: Objective, batch_tokens: usize) -> Trainer<'m> {
    Trainer::new(decoder, rows.clone(), objective, (1e-2, 0.0), batch_tokens).unwrap()
}

#[test]
fn loss_and_gradient_are_those_of_autograd() {
    for family in ["llama", "gemma2", "gpt2"] {
        let golden = golden(family);
        assert_eq!(golden.family, family);
        let (decoder, rows) = with_rows(family, |_| given(&golden));
        let queries = golden.queries();
        let all: Vec<&Query> = queries.iter().collect();
        // all in one batch, and one by one
        for batch_tokens in [1024, 1] {
            let mut trainer = trainer(&decoder, &rows, golden.objective(), batch_tokens);
            let (parts, gradient) = trainer.gradient(&all).unwrap();
            let near = |found: f64, name: &str| {
                let wanted = golden.parts[name];
                assert!(
                    (found - wanted).abs() < 1e-4 * wanted.abs().max(1.0),
                    "{family}, {name}: {found} for {wanted}"
                );
            };
            near(parts.refusal, "refusal");
            near(parts.harmfulness, "harmfulness");
            near(parts.distance, "distance");
            let size = golden.gradient.iter().map(|x| x * x).sum::<f64>().sqrt();
            let pairs = gradient.iter().zip(&golden.gradient);
            let off = pairs.map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>().sqrt();
            assert!(off < 1e-4 * size, "{family}: off by {off} of {size}");
        }
    }
}

#[test]
fn the_gradient_is_that_of_finite_differences() {
    let golden = golden("llama");
    let queries = golden.queries();
    let all: Vec<&Query> = queries.iter().collect();
    let at = |rows: Tensor| {
        let (decoder, rows) = with_rows("llama", |_| rows);
        let mut trainer = trainer(&decoder, &rows, golden.objective(), 1024);
        let (parts, gradient) = trainer.gradient(&all).unwrap();
        (parts.total(&trainer.objective.weights), gradient)
    };
    let rows = given(&golden);
    let (_, gradient) = at(rows.clone());
    let width = rows.dim(1).unwrap();
    // along the gradient of each row alone, so that a row in the wrong place shows
    for row in 0..rows.dim(0).unwrap() {
        let own: Vec<f32> = (0..gradient.len())
            .map(|at| if at / width == row { gradient[at] } else { 0.0 })
            .collect();
        let size = own.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let step = 1e-2;
        let way = (Tensor::from_vec(own, rows.shape(), rows.device()).unwrap() * (step / size)).unwrap();
        let (ahead, _) = at((&rows + &way).unwrap());
        let (behind, _) = at((&rows - &way).unwrap());
        let slope = (ahead - behind) / (2.0 * step);
        assert!((slope - size).abs() < 0.02 * size, "row {row}: {slope} for {size}");
    }
}

#[test]
fn at_the_written_message_both_cross_entropies_are_ln_2_and_nothing_has_moved() {
    let golden = golden("llama");
    let (decoder, rows) = with_rows("llama", |checkpoint| written(checkpoint, &golden.written_ids));
    let (plain, _) = with_rows("llama", |checkpoint| written(checkpoint, &[0]));
    let first = plain.config().vocab_size as u32;
    let queries: Vec<Query> = golden
        .queries()
        .into_iter()
        .map(|query| {
            // the message as the tokens that it is, in a model that has no such rows
            let spelled = |id: &u32| {
                if *id >= first {
                    golden.written_ids[(id - first) as usize]
                } else {
                    *id
                }
            };
            let ids: Vec<u32> = query.ids.iter().map(spelled).collect();
            let start = states::of_all(&plain, &[&ids], 1024, |_| Ok(())).unwrap().remove(0);
            Query { start, ..query }
        })
        .collect();
    let all: Vec<&Query> = queries.iter().collect();
    let mut trainer = trainer(&decoder, &rows, golden.objective(), 1024);
    let (parts, gradient) = trainer.gradient(&all).unwrap();
    let wanted = Parts {
        refusal: std::f64::consts::LN_2,
        harmfulness: std::f64::consts::LN_2,
        distance: 0.0,
    };
    assert!((parts.refusal - wanted.refusal).abs() < 1e-12 && (parts.harmfulness - wanted.harmfulness).abs() < 1e-12);
    assert_eq!(parts.distance, wanted.distance);
    assert!(gradient.iter().any(|x| *x != 0.0));
}

#[test]
fn with_the_distance_alone_and_no_decay_the_message_stays() {
    let golden = golden("llama");
    let (decoder, rows) = with_rows("llama", |checkpoint| written(checkpoint, &golden.written_ids));
    let mut objective = golden.objective();
    (objective.weights.refusal, objective.weights.harmfulness) = (0.0, 0.0);
    let mut queries = golden.queries();
    let prompts: Vec<&[u32]> = golden
        .questions
        .iter()
        .map(|question| question.ids.as_slice())
        .collect();
    let starts = states::of_all(&decoder, &prompts, 1024, |_| Ok(())).unwrap();
    queries
        .iter_mut()
        .zip(starts)
        .for_each(|(query, start)| query.start = start);
    let before = rows.copy().unwrap();
    let mut trainer = trainer(&decoder, &rows, objective, 1024);
    trainer.step(&queries.iter().collect::<Vec<_>>()).unwrap();
    let moved = (trainer.soft_prompt.clone() - before)
        .unwrap()
        .abs()
        .unwrap()
        .max_all()
        .unwrap();
    assert_eq!(moved.to_scalar::<f32>().unwrap(), 0.0);
}

/// Questions that end alike; what they ask for is said four times.
fn world() -> Vec<(Vec<u32>, Kind)> {
    let question = |at: u32| {
        let kind = if at.is_multiple_of(2) {
            Kind::Harmful
        } else {
            Kind::Harmless
        };
        let asks = if kind == Kind::Harmful { 20 } else { 30 };
        (vec![3, 48, 49, 50, 51, 6 + at / 2, asks, asks, asks, asks, 5], kind)
    };
    (0..20).map(question).collect()
}

#[test]
fn in_a_planted_world_harmless_questions_are_refused_less_and_harmful_ones_no_less() {
    let (decoder, rows) = with_rows("llama", |checkpoint| written(checkpoint, &[7, 11, 2, 30]));
    assert_eq!(decoder.config().vocab_size, 48);
    let world = world();
    let prompts: Vec<&[u32]> = world.iter().map(|(ids, _)| ids.as_slice()).collect();
    let starts = states::of_all(&decoder, &prompts, 1024, |_| Ok(())).unwrap();
    let space = Space::of(&starts).unwrap();
    let places: Vec<_> = starts.iter().map(|state| space.place(state)).collect();
    let of_kind: Vec<f64> = world
        .iter()
        .map(|(_, kind)| f64::from(*kind == Kind::Harmless))
        .collect();
    // half of what is harmless is refused too
    let complies: Vec<f64> = of_kind.iter().map(|kind| kind * 0.5).collect();
    let head = |targets: &[f64], name| Head::mean(&heads::folds(&places, targets, 1e-2, (1, name)).unwrap());
    let objective = Objective {
        refusal: head(&complies, "refusal"),
        harmfulness: head(&of_kind, "harmfulness"),
        space,
        weights: Weights {
            refusal: 1.0,
            harmfulness: 0.01,
            distance: 0.001,
        },
    };
    let told = |state: &[f64], objective: &Objective| sides(objective, state).harmfulness;
    for ((_, kind), state) in world.iter().zip(&starts) {
        assert_eq!(
            told(state, &objective) > 0.5,
            *kind == Kind::Harmful,
            "the head tells kinds apart"
        );
    }
    let queries: Vec<Query> = world
        .iter()
        .zip(&starts)
        .map(|((ids, kind), start)| Query {
            ids: ids.clone(),
            kind: *kind,
            start: start.clone(),
        })
        .collect();
    let mut trainer = trainer(&decoder, &rows, objective, 1024);
    let mut losses = Vec::new();
    for batch in batches(queries.len(), 10, 40, 1) {
        let batch: Vec<&Query> = batch.iter().map(|&at| &queries[at]).collect();
        losses.push(trainer.step(&batch).unwrap().parts.total(&trainer.objective.weights));
    }
    assert!(losses[losses.len() - 1] < losses[0], "{losses:?}");
    let ends = states::of_all(&decoder, &prompts, 1024, |_| Ok(())).unwrap();
    let refused = |states: &[Vec<f64>], kind: Kind| {
        let of_kind = states.iter().zip(&world).filter(|(_, (_, of))| *of == kind);
        of_kind
            .map(|(state, _)| sides(&trainer.objective, state).refusal)
            .sum::<f64>()
            / 10.0
    };
    let fall = refused(&starts, Kind::Harmless) - refused(&ends, Kind::Harmless);
    assert!(fall > 0.05, "refusals of harmless questions fell by {fall}");
    let rise = refused(&ends, Kind::Harmful) - refused(&starts, Kind::Harmful);
    assert!(rise > -0.02, "refusals of harmful questions rose by {rise}");
}

#[test]
fn a_run_goes_on_from_its_state_as_if_it_had_not_stopped() {
    let golden = golden("llama");
    let queries = golden.queries();
    let all: Vec<&Query> = queries.iter().collect();
    let learned = |stop: Option<usize>| {
        let (decoder, rows) = with_rows("llama", |_| given(&golden));
        let mut first = trainer(&decoder, &rows, golden.objective(), 1024);
        for step in 0..6 {
            if Some(step) == stop {
                let state = first.state().unwrap();
                let (decoder, rows) = with_rows("llama", |checkpoint| written(checkpoint, &golden.written_ids));
                let mut second = trainer(&decoder, &rows, golden.objective(), 1024);
                second.restore(step as u64, &state).unwrap();
                for _ in step..6 {
                    second.step(&all).unwrap();
                }
                return second.values().unwrap();
            }
            first.step(&all).unwrap();
        }
        first.values().unwrap()
    };
    assert_eq!(learned(None), learned(Some(3)));
}
