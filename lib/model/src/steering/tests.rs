use candle_core::{DType, Device, Tensor};

use super::*;
use crate::config::Config;
use crate::faults::Faults;

/// A matrix that every language computes alike: sin(a (i + 1)(j + 1) + j / 10).
fn rows_of(count: usize, width: usize, a: f64) -> Vec<Vec<f64>> {
    let at = |i: usize, j: usize| (a * ((i + 1) * (j + 1)) as f64 + 0.1 * j as f64).sin();
    (0..count).map(|i| (0..width).map(|j| at(i, j)).collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn unit(vector: &[f64]) -> Vec<f64> {
    let length = dot(vector, vector).sqrt();
    vector.iter().map(|x| x / length).collect()
}

fn plane() -> [Vec<f64>; 2] {
    let first = unit(&rows_of(1, 16, 0.21)[0]);
    let second = rows_of(1, 16, 1.9).remove(0);
    let along = dot(&second, &first);
    let rest: Vec<f64> = second.iter().zip(&first).map(|(x, b)| x - along * b).collect();
    [first, unit(&rest)]
}

/// What is rotated in the goldens, which speak of the first; the last three are turned round, so that every bound parts them.
fn states() -> Vec<Vec<f64>> {
    let scaled = |(at, row): (usize, Vec<f64>)| {
        let factor = if at < 3 { 3.0 } else { -3.0 };
        row.into_iter().map(|x| factor * x).collect()
    };
    rows_of(6, 16, 0.41).into_iter().enumerate().map(scaled).collect()
}

fn tensor(rows: &[Vec<f64>], dtype: DType) -> Tensor {
    let tensor = Tensor::new(rows.concat(), &Device::Cpu).unwrap();
    let tensor = tensor.reshape((rows.len(), rows[0].len())).unwrap();
    tensor.to_dtype(dtype).unwrap()
}

fn apply_in(dtype: DType, step: Step, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let placed = Placed {
        edit: step
            .edit
            .place(Point::new(Site::ResidPost, 0), rows[0].len(), &Device::Cpu)
            .unwrap(),
        gate: step.gate.map(|gate| gate.place(rows[0].len(), &Device::Cpu).unwrap()),
        positions: step.positions,
    };
    let positions: Vec<u32> = (0..rows.len() as u32).collect();
    let done = placed.apply(&tensor(rows, dtype), &positions).unwrap();
    assert_eq!(done.dtype(), dtype);
    done.to_dtype(DType::F64).unwrap().to_vec2().unwrap()
}

fn apply(edit: Edit, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    apply_in(DType::F64, Step::everywhere(edit), rows)
}

fn rotated(degrees: f64, turn: Turn) -> Vec<Vec<f64>> {
    let edit = Edit::Rotate {
        plane: plane(),
        degrees,
        turn,
        share: 1.0,
    };
    apply(edit, &states())
}

fn angle(row: &[f64]) -> f64 {
    let [first, second] = plane();
    dot(row, &second).atan2(dot(row, &first)).to_degrees()
}

fn near(found: f64, wanted: f64, tolerance: f64) {
    assert!((found - wanted).abs() <= tolerance, "{found}, not {wanted}");
}

#[test]
fn rotations_have_the_angles_and_norms_of_numpy() {
    near(angle(&states()[0]), -173.097150, 5e-7);
    for (turn, wanted) in [(Turn::Absolute, 60.0), (Turn::Relative, -113.097150)] {
        let row = &rotated(60.0, turn)[0];
        near(angle(row), wanted, 5e-7);
        near(dot(row, row).sqrt(), 8.7794420306, 5e-11);
    }
}

#[test]
fn only_rows_with_a_positive_part_are_turned_where_that_is_asked() {
    let (before, all, some) = (states(), rotated(60.0, Turn::Absolute), rotated(60.0, Turn::Positive));
    let mut counts = [0, 0];
    for (at, row) in before.iter().enumerate() {
        let is_positive = dot(row, &plane()[0]) > 0.0;
        counts[usize::from(is_positive)] += 1;
        assert_eq!(&some[at], if is_positive { &all[at] } else { row });
    }
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
}

#[test]
fn rotation_keeps_norms_in_single_precision_too() {
    for turn in [Turn::Absolute, Turn::Positive, Turn::Relative] {
        for degrees in [0.0, 10.0, 90.0, 200.0, 350.0] {
            let edit = Edit::Rotate {
                plane: plane(),
                degrees,
                turn,
                share: 1.0,
            };
            let done = apply_in(DType::F32, Step::everywhere(edit), &states());
            for (row, before) in done.iter().zip(states()) {
                near(dot(row, row).sqrt() / dot(&before, &before).sqrt(), 1.0, 1e-6);
            }
        }
    }
}

#[test]
fn redirection_has_the_numbers_of_numpy_and_keeps_the_norm() {
    let mean = |rows: &[Vec<f64>]| -> Vec<f64> {
        let sum = |j| rows.iter().map(|row| row[j]).sum::<f64>() / rows.len() as f64;
        (0..16).map(sum).collect()
    };
    let length = |row: &Vec<f64>| dot(row, row).sqrt();
    let (forget, retain) = (rows_of(6, 16, 0.41), rows_of(6, 16, 0.83));
    let (f, r) = (mean(&forget), mean(&retain));
    let share = dot(&f, &r) / (dot(&r, &r) + 1e-6);
    let across: Vec<f64> = f.iter().zip(&r).map(|(f, r)| f - share * r).collect();
    let target = (forget.iter().map(length).sum::<f64>() + retain.iter().map(length).sum::<f64>()) / 12.0;
    near(target, 2.8684000960, 5e-11);
    let vector: Vec<f64> = unit(&across).iter().map(|x| 0.3 * target * x).collect();
    let done = apply(Edit::Redirect(vector), &states());
    for (found, wanted) in done[0].iter().zip([0.7037195656, 2.4893300959, 3.0250726118]) {
        near(*found, wanted, 5e-11);
    }
    for (row, before) in done.iter().zip(states()) {
        near(length(row), length(&before), 1e-12);
    }
}

#[test]
fn a_row_that_equals_the_vector_it_is_led_away_from_becomes_zero() {
    assert_eq!(apply(Edit::Redirect(vec![1.0, 2.0]), &[vec![1.0, 2.0]]), [[0.0, 0.0]]);
}

#[test]
fn ablating_a_subspace_twice_is_ablating_it_once_and_leaves_nothing_in_it() {
    let edit = Edit::Ablate {
        basis: plane().into(),
        share: 1.0,
    };
    let once = apply(edit.clone(), &states());
    let twice = apply(edit, &once);
    for (once, twice) in once.iter().zip(&twice) {
        plane().iter().for_each(|vector| near(dot(once, vector), 0.0, 1e-14));
        once.iter().zip(twice).for_each(|(a, b)| near(*a, *b, 1e-14));
    }
}

#[test]
fn a_share_of_a_change_is_made_in_proportion() {
    let [direction, _] = plane();
    let half = apply(
        Edit::Ablate {
            basis: vec![direction.clone()],
            share: 0.5,
        },
        &states(),
    );
    for (row, before) in half.iter().zip(states()) {
        near(dot(row, &direction), 0.5 * dot(&before, &direction), 1e-14);
    }
}

#[test]
fn a_bound_holds_where_it_was_passed_and_moves_no_other_row() {
    let [direction, _] = plane();
    for (bound, limit) in [(Bound::AtMost(0.4), 0.4), (Bound::AtLeast(-0.3), -0.3)] {
        let edit = Edit::Clip {
            direction: direction.clone(),
            bound,
            share: 1.0,
        };
        let (mut kept, mut moved) = (0, 0);
        for (row, before) in apply(edit, &states()).iter().zip(states()) {
            let was = dot(&before, &direction);
            let is_within = match bound {
                Bound::AtMost(limit) => was <= limit,
                Bound::AtLeast(limit) => was >= limit,
            };
            if is_within {
                assert_eq!(*row, before);
                kept += 1;
            } else {
                near(dot(row, &direction), limit, 1e-14);
                moved += 1;
            }
        }
        assert!(kept > 0 && moved > 0);
    }
    let clamped = apply(
        Edit::Clamp {
            limits: Limits::One(1.0),
            share: 1.0,
        },
        &[vec![-3.0, 0.5, 2.0]],
    );
    assert_eq!(clamped, [[-1.0, 0.5, 1.0]]);
}

#[test]
fn scaling_touches_only_its_dimensions() {
    let mut factors = vec![0.0; 16];
    factors[3] = -0.5;
    factors[7] = 1.0;
    for (row, before) in apply(Edit::Scale(factors), &states()).iter().zip(states()) {
        for (at, (x, before)) in row.iter().zip(&before).enumerate() {
            let factor = [(3, 0.5), (7, 2.0)].into_iter().find(|(dim, _)| *dim == at);
            assert_eq!(*x, before * factor.map_or(1.0, |(_, factor)| factor));
        }
    }
}

#[test]
fn gates_and_positions_choose_rows() {
    let direction = plane()[0].clone();
    let shift = vec![1.0; 16];
    let step = |gate, positions| Step {
        edit: Edit::Add(shift.clone()),
        gate,
        positions,
    };
    let all = 0..=u32::MAX;
    let gate = |at_least| Gate::Projection {
        direction: direction.clone(),
        at_least,
    };
    let cosine = |at_least| Gate::Cosine {
        direction: direction.clone(),
        at_least,
    };
    type Passes<'p> = &'p dyn Fn(usize, f64, f64) -> bool;
    let cases: [(Step, Passes); 5] = [
        (step(Some(gate(0.2)), all.clone()), &|_, along, _| along >= 0.2),
        (step(Some(cosine(0.1)), all), &|_, _, cosine| cosine >= 0.1),
        (step(None, 2..=3), &|at, _, _| (2..=3).contains(&at)),
        (step(Some(gate(0.0)), 0..=2), &|at, along, _| along >= 0.0 && at <= 2),
        (step(None, 9..=12), &|_, _, _| false),
    ];
    for (step, passes) in cases {
        let done = apply_in(DType::F64, step, &states());
        for (at, (row, before)) in done.iter().zip(states()).enumerate() {
            let along = dot(&before, &direction);
            let is_chosen = passes(at, along, along / dot(&before, &before).sqrt());
            let wanted: Vec<f64> = before.iter().map(|x| x + f64::from(u8::from(is_chosen))).collect();
            assert_eq!(*row, if is_chosen { wanted } else { before });
        }
    }
}

#[test]
fn a_row_of_zeros_passes_no_gate_of_cosines() {
    let step = Step {
        edit: Edit::Add(vec![1.0, 0.0]),
        gate: Some(Gate::Cosine {
            direction: vec![1.0, 0.0],
            at_least: -1.0,
        }),
        positions: 0..=u32::MAX,
    };
    assert_eq!(apply_in(DType::F32, step, &[vec![0.0, 0.0]]), [[0.0, 0.0]]);
}

#[test]
fn a_row_has_the_bits_that_it_has_alone() {
    let rows = states();
    let bits = |rows: &[Vec<f64>]| rows.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
    let edits = [
        Edit::Ablate {
            basis: plane().into(),
            share: 0.7,
        },
        Edit::Redirect(plane()[0].clone()),
        Edit::Rotate {
            plane: plane(),
            degrees: 30.0,
            turn: Turn::Positive,
            share: 1.0,
        },
    ];
    for edit in edits {
        let together = apply_in(DType::F32, Step::everywhere(edit.clone()), &rows);
        for (at, row) in rows.iter().enumerate() {
            let alone = apply_in(DType::F32, Step::everywhere(edit.clone()), std::slice::from_ref(row));
            assert_eq!(bits(&alone), bits(&together[at..=at]), "{edit:?}");
        }
    }
}

fn config(family: &str) -> Config {
    let path = format!(
        "{}/../../tests/fixtures/models/{family}/config.json",
        env!("CARGO_MANIFEST_DIR")
    );
    Config::parse(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn what_changes_nothing_is_left_out() {
    let mut steering = Steering::new(&config("llama"), &Device::Cpu);
    let nothing = [
        Edit::Add(vec![0.0; 16]),
        Edit::Scale(vec![0.0; 16]),
        Edit::Redirect(vec![0.0; 16]),
        Edit::Ablate {
            basis: plane().into(),
            share: 0.0,
        },
        Edit::Rotate {
            plane: plane(),
            degrees: 60.0,
            turn: Turn::Absolute,
            share: 0.0,
        },
        Edit::Clip {
            direction: plane()[0].clone(),
            bound: Bound::AtMost(0.0),
            share: 0.0,
        },
        Edit::Clamp {
            limits: Limits::One(1.0),
            share: 0.0,
        },
        Edit::Flip {
            faults: Faults { rate: 0.0, seed: 1 },
            bits: 32,
        },
    ];
    for edit in nothing {
        let point = Point::new(Site::ResidPost, 0);
        steering.push(point, Step::everywhere(edit)).unwrap();
        assert!(steering.is_empty() && !steering.probe().wants(point));
    }
}

#[test]
fn a_place_that_the_model_has_not_is_refused() {
    let push = |family: &str, site, layer, width| {
        let mut steering = Steering::new(&config(family), &Device::Cpu);
        let step = Step::everywhere(Edit::Add(vec![1.0; width]));
        steering.push(Point::new(site, layer), step).unwrap_err().to_string()
    };
    assert!(push("gpt_neox", Site::ResidMid, 0, 16).contains("parallel"));
    assert!(push("llama", Site::ResidPre, 3, 16).contains("3 layers"));
    assert!(push("llama", Site::FinalNorm, 0, 16).contains("no block"));
    assert!(push("llama", Site::MlpOut, 0, 24).contains("24"));
    assert!(push("llama", Site::AttnLogitMax, 0, 4).contains("only be looked at"));
}
