//! Pages in a real browser, at the width of a telephone, a tablet and a desk: what is there, not how its pixels look.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use harness::{Run, skip, temp_dir, tool, workspace};
use serde_json::{Value, json};

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const WIDTHS: [u32; 3] = [390, 820, 1440];

/// Says what the page holds and how it answers, as JSON in an element of its own.
const PROBE: &str = r##"<script>
addEventListener('load', () => {
  const all = (selector, under = document) => [...under.querySelectorAll(selector)];
  const hidden = picture => all('*', picture).filter(mark => mark.style.display === 'none').length;
  const picture = all('svg').find(svg => svg.querySelector('[role=button]'));
  const key = picture.querySelector('[role=button]');
  const counts = [hidden(picture)];
  key.dispatchEvent(new MouseEvent('click'));
  counts.push(hidden(picture));
  key.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' }));
  counts.push(hidden(picture));
  const said = document.createElement('pre');
  said.id = 'probe';
  said.textContent = JSON.stringify({
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - innerWidth,
    headings: all('h1,h2').length, figures: all('figure').length,
    wide: all('svg').filter(svg => svg.getBoundingClientRect().width > innerWidth).length,
    flat: all('svg').filter(svg => 50 > svg.getBoundingClientRect().height).length,
    numbers: all('circle > title').length, hidden: counts,
    fetched: performance.getEntriesByType('resource').length,
    ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor,
  });
  document.body.append(said);
});
</script>"##;

fn browser() -> Option<OsString> {
    let found = NAMES
        .iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok());
    if found.is_none() {
        skip("chromium", "no Chromium is installed");
    }
    found.map(OsString::from)
}

/// A page of the records of a release, two of its runs side by side.
fn page(directory: &Path) -> String {
    let release = workspace().join("tests/fixtures/releases/0.1.0");
    let metrics = release.join("metrics.jsonl");
    let path = directory.join("page.html");
    let runs = ["with", "without"].map(|name| format!("{name}={}", metrics.display()));
    Run::new(tool("resid-plot"))
        .args(runs)
        .arg("-o")
        .arg(&path)
        .output()
        .expect(0);
    fs::read_to_string(path).expect("a page")
}

fn look(browser: &OsString, page: &Path, home: &Path, width: u32) -> Value {
    let done = Run::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--virtual-time-budget=2000",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", home.display()))
        .arg(format!("--window-size={width},900"))
        .arg(page)
        .output()
        .expect(0);
    let said = done
        .text()
        .split("<pre id=\"probe\">")
        .nth(1)
        .and_then(|rest| rest.split("</pre>").next());
    serde_json::from_str(said.expect("what the probe says")).expect("JSON")
}

#[test]
fn a_page_fits_three_widths_says_its_numbers_and_hides_a_series_on_request() {
    let Some(browser) = browser() else { return };
    let directory = temp_dir();
    let probed = page(directory.path()).replace("</body>", &format!("{PROBE}</body>"));
    let path = directory.path().join("probed.html");
    fs::write(&path, &probed).expect("the page");
    for width in WIDTHS {
        let seen = look(&browser, &path, &directory.path().join(format!("home-{width}")), width);
        assert_eq!(seen["overflow"].as_i64().map(|pixels| pixels.max(0)), Some(0), "{seen}");
        assert_eq!(
            json!([seen["wide"], seen["flat"], seen["fetched"]]),
            json!([0, 0, 0]),
            "{seen}"
        );
        assert_ne!(seen["ink"], seen["paper"]);
        assert_eq!(seen["figures"].as_u64().map(|count| count > 0), Some(true), "{seen}");
        assert_eq!(seen["numbers"].as_u64().map(|count| count > 20), Some(true), "{seen}");
        let hidden: Vec<u64> = serde_json::from_value(seen["hidden"].clone()).expect("three counts");
        assert!(hidden[0] == 0 && hidden[1] > 0 && hidden[2] == 0, "{seen}");
    }
}
