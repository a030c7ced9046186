//! Man pages and shell completions, rendered from the argument definitions.

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::exit::{Error, Exit, Result, ResultExt};

/// The man page of a tool, section 1.
pub fn man(command: Command) -> Result<Vec<u8>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let closing = command.get_after_long_help().map(|text| text.to_string());
    let page = Man::new(command.clone())
        .manual("flowlens")
        .source(format!("flowlens {}", crate::VERSION));
    let mut roff = Vec::new();
    let mut rendered = || -> std::io::Result<()> {
        page.render_title(&mut roff)?;
        page.render_name_section(&mut roff)?;
        page.render_synopsis_section(&mut roff)?;
        page.render_description_section(&mut roff)?;
        page.render_options_section(&mut roff)?;
        for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
            subcommand_section(subcommand, &mut roff)?;
        }
        exit_section(&mut roff)?;
        if let Some(closing) = &closing {
            closing_sections(closing, &mut roff)?;
        }
        see_also(&mut roff)
    };
    rendered().at("stdout")?;
    Ok(roff)
}

/// The completion script of a tool for one shell.
pub fn completions(mut command: Command, shell: &str) -> Result<Vec<u8>> {
    let shell: Shell = shell
        .parse()
        .map_err(|_| Error::usage("--completions", "expected bash, zsh, fish, elvish or powershell"))?;
    let name = command.get_name().to_string();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    Ok(script)
}

fn subcommand_section(subcommand: &Command, roff: &mut Vec<u8>) -> std::io::Result<()> {
    let mut title = Roff::new();
    title.control("SH", [subcommand.get_name().to_uppercase().as_str()]);
    if let Some(about) = subcommand.get_long_about().or(subcommand.get_about()) {
        title.text([roman(about.to_string())]);
    }
    title.to_writer(roff)?;
    // The options of a subcommand stand below its heading; clap_mangen writes its own OPTIONS heading, which
    // here becomes a subsection.
    let mut body = Vec::new();
    Man::new(subcommand.clone()).render_synopsis_section(&mut body)?;
    Man::new(subcommand.clone()).render_options_section(&mut body)?;
    let text = String::from_utf8_lossy(&body).replace(".SH ", ".SS ");
    roff.extend_from_slice(text.as_bytes());
    Ok(())
}

fn exit_section(roff: &mut Vec<u8>) -> std::io::Result<()> {
    let mut section = Roff::new();
    section.control("SH", ["EXIT STATUS"]);
    for (exit, name, meaning) in Exit::TABLE {
        section.control("TP", []);
        section.text([bold(format!("{} ({name})", exit.code()))]);
        section.text([roman(*meaning)]);
    }
    section.control("TP", []);
    section.text([bold("128+N")]);
    section.text([roman(
        "ended by signal N: 130 interrupt, 143 terminate, 141 closed pipe",
    )]);
    section.to_writer(roff)
}

/// The text after the options: a line in capitals opens a section, what follows stands as it was typed. Text before
/// the first heading is examples.
fn closing_sections(text: &str, roff: &mut Vec<u8>) -> std::io::Result<()> {
    let mut sections: Vec<(String, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        let title = line.trim_end_matches(':');
        let heads = line.starts_with(char::is_alphabetic) && title == title.to_uppercase();
        if heads || title == "Examples" {
            sections.push((title.to_uppercase(), Vec::new()));
        } else if let Some((_, lines)) = sections.last_mut() {
            lines.push(line);
        } else {
            sections.push(("EXAMPLES".to_string(), vec![line]));
        }
    }
    for (title, lines) in sections {
        let mut section = Roff::new();
        section.control("SH", [title.as_str()]);
        section.control("nf", []);
        let end = lines
            .iter()
            .rposition(|line| !line.is_empty())
            .map_or(0, |last| last + 1);
        for line in &lines[..end] {
            section.text([roman(*line)]);
        }
        section.control("fi", []);
        section.to_writer(roff)?;
    }
    Ok(())
}

fn see_also(roff: &mut Vec<u8>) -> std::io::Result<()> {
    let mut section = Roff::new();
    section.control("SH", ["SEE ALSO"]);
    section.text([roman("flowlens(7), acts(5), records(5)")]);
    section.to_writer(roff)
}
