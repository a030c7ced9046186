//! What a picture answers in a browser, without a framework and in the file itself: the numbers of a point under the pointer, and which
//! series are shown. A viewer that runs nothing shows the same picture.

use super::GRID;
use super::page::escape;
use plotters::prelude::RGBColor;
use std::fmt::Write;

/// Beyond so many points a picture would be more numbers than picture.
const MOST: usize = 2_000;
const RADIUS: i32 = 6 * GRID;

/// A place of the picture, in its grid, and what is said there.
pub struct Spot {
    at: (i32, i32),
    text: String,
}

impl Spot {
    pub fn new(at: (i32, i32), series: &str, numbers: String) -> Spot {
        let text = match series {
            "" => numbers,
            name => format!("{name}: {numbers}"),
        };
        Spot { at, text }
    }
}

/// The box of a legend's entry, which hides and shows what has its colour left of it.
pub struct Key {
    pub at: (i32, i32),
    pub size: (i32, i32),
    pub name: String,
    pub colour: RGBColor,
}

const SWITCH: &str = r##"<script>
for (const key of document.currentScript.parentNode.querySelectorAll('[role=button]')) {
  const toggle = () => {
    const hide = key.getAttribute('aria-pressed') === 'true', picture = key.ownerSVGElement, colour = key.dataset.colour;
    for (const same of picture.querySelectorAll(`[data-colour="${colour}"]`)) {
      same.setAttribute('aria-pressed', String(!hide));
      same.style.fillOpacity = hide ? 0.7 : 0;
    }
    for (const mark of picture.querySelectorAll(`[stroke="${colour}"],[fill="${colour}"]`))
      if (key.x.baseVal.value > mark.getBBox().x) mark.style.display = hide ? 'none' : '';
  };
  key.onclick = toggle;
  key.onkeydown = event => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); toggle(); } };
}
</script>"##;

/// What is laid over a picture, before its end.
pub fn overlay(spots: &[Spot], keys: &[Key]) -> String {
    let mut text = String::new();
    if spots.len() <= MOST {
        for Spot { at: (x, y), text: says } in spots {
            let _ = writeln!(
                text,
                "<circle cx=\"{x}\" cy=\"{y}\" r=\"{RADIUS}\" fill=\"none\" pointer-events=\"all\"><title>{}</title></circle>",
                escape(says)
            );
        }
    }
    for key in keys {
        let RGBColor(red, green, blue) = key.colour;
        let _ = writeln!(
            text,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"white\" fill-opacity=\"0\" pointer-events=\"all\" \
             cursor=\"pointer\" tabindex=\"0\" role=\"button\" aria-pressed=\"true\" data-colour=\"#{red:02X}{green:02X}{blue:02X}\">\
             <title>{}: hide or show</title></rect>",
            key.at.0,
            key.at.1,
            key.size.0,
            key.size.1,
            escape(&key.name)
        );
    }
    if !keys.is_empty() {
        text.push_str(SWITCH);
        text.push('\n');
    }
    text
}
