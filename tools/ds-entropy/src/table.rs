//! `--format table`: a line a group, then what each group repeats.

use process::{Cell, Table, one_below_the_other};

use crate::report::{Entropy, Record, name_of};

pub fn tables(rows: &[Record]) -> String {
    let entropies: Vec<&Entropy> = rows
        .iter()
        .filter_map(|row| match row {
            Record::Entropy(entropy) => Some(&**entropy),
            _ => None,
        })
        .collect();
    one_below_the_other([
        whole(&entropies),
        at_size(&entropies),
        perplexities(&entropies),
        repeated(rows),
    ])
}

fn whole(entropies: &[&Entropy]) -> String {
    let mut table = Table::new([
        "group", "samples", "tokens", "H1", "H2", "H3", "MSTTR", "dist-1", "dist-2", "dist-3", "dupl", "templ", "zstd",
        "p50 len",
    ]);
    for entropy in entropies {
        let lexical = &entropy.lexical;
        table.row([
            Cell::text(name_of(&entropy.group)),
            Cell::count(entropy.sample_count),
            Cell::count(entropy.token_count),
            Cell::fixed(lexical.h1, 2),
            Cell::fixed(lexical.h2, 2),
            Cell::fixed(lexical.h3, 2),
            Cell::fixed(lexical.msttr, 3),
            Cell::fixed(lexical.distinct_1, 3),
            Cell::fixed(lexical.distinct_2, 3),
            Cell::fixed(lexical.distinct_3, 3),
            Cell::fixed(entropy.duplicate_rate, 3),
            Cell::fixed(entropy.template_coverage, 3),
            Cell::fixed(entropy.zstd_ratio, 2),
            Cell::count_if_any(entropy.length_quantiles.map(|quantiles| quantiles.p50)),
        ]);
    }
    table.to_string()
}

/// The measures of `--at`, with the spread between draws.
fn at_size(entropies: &[&Entropy]) -> String {
    let mut table = Table::new([
        "at N tokens",
        "N",
        "H1",
        "H2",
        "±",
        "H3",
        "±",
        "MSTTR",
        "±",
        "dist-1",
        "dist-2",
        "dist-3",
    ]);
    for entropy in entropies {
        let Some(at) = &entropy.at else { continue };
        table.row([
            Cell::text(name_of(&entropy.group)),
            Cell::count(at.token_count),
            Cell::fixed(at.means.h1, 2),
            Cell::fixed(at.means.h2, 2),
            Cell::fixed(at.spreads.h2_sd, 3),
            Cell::fixed(at.means.h3, 2),
            Cell::fixed(at.spreads.h3_sd, 3),
            Cell::fixed(at.means.msttr, 3),
            Cell::fixed(at.spreads.msttr_sd, 4),
            Cell::fixed(at.means.distinct_1, 3),
            Cell::fixed(at.means.distinct_2, 3),
            Cell::fixed(at.means.distinct_3, 3),
        ]);
    }
    table.to_string()
}

fn perplexities(entropies: &[&Entropy]) -> String {
    let mut table = Table::new(["perplexity", "samples", "mean", "sd", "p50", "p90", "p99", "max"]);
    for entropy in entropies {
        let Some(perplexity) = &entropy.perplexity else {
            continue;
        };
        table.row([
            Cell::text(name_of(&entropy.group)),
            Cell::count(perplexity.sample_count),
            Cell::fixed(perplexity.mean, 2),
            Cell::fixed(perplexity.sd, 2),
            Cell::fixed(perplexity.p50, 2),
            Cell::fixed(perplexity.p90, 2),
            Cell::fixed(perplexity.p99, 2),
            Cell::fixed(perplexity.max, 2),
        ]);
    }
    table.to_string()
}

/// The frequent n-grams and openings, under the name of their group.
fn repeated(rows: &[Record]) -> String {
    let mut out = String::new();
    let mut current = None;
    for row in rows {
        let (group, line) = match row {
            Record::Entropy(_) => continue,
            Record::Ngram(row) => {
                let tokens = process::safe_text(&row.tokens.join(" "));
                (&row.group, format!("{:>9}  {tokens}\n", row.count))
            }
            Record::Template(row) => {
                let (text, ids) = (
                    process::safe_text(&row.text),
                    process::safe_text(&row.example_ids.join(", ")),
                );
                (
                    &row.group,
                    format!("{:>8.1}%  {text} …  ({ids})\n", row.coverage * 100.0),
                )
            }
        };
        if current.replace(group) != Some(group) {
            let gap = if out.is_empty() { "" } else { "\n" };
            out.push_str(&format!("{gap}{}\n", process::safe_text(name_of(group))));
        }
        out.push_str(&line);
    }
    out
}
