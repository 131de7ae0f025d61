//! The bench as one self-contained page: bars against the peers, and how the samples of each row are spread.

use super::bars::{self, Bar};
use super::peers::Measured;
use super::rows::{Findings, Row};
use anyhow::{Context, anyhow};
use plotters::prelude::*;
use std::fmt::Write;
use std::path::Path;

const WIDTH: u32 = 1100;
/// Height of a row's group of bars.
const GROUP: u32 = 44;
const MARGIN: u32 = 70;
/// Where bars begin, and the pixels of a power of ten: in the picture of what has bars, and of everything.
const LEFT: i32 = 400;
const DECADE: f64 = 130.0;
const DECADE_OF_ALL: f64 = 85.0;
const HISTOGRAM: (u32, u32) = (340, 150);
const OURS: RGBColor = RGBColor(0, 110, 180);
const XEN: RGBColor = RGBColor(230, 150, 40);
const KVM: RGBColor = RGBColor(170, 70, 130);
const BAR: RGBColor = RGBColor(90, 90, 90);

/// Writes the page.
pub(crate) fn write(path: &Path, findings: &Findings, peers: &[Measured]) -> anyhow::Result<()> {
    let mut histograms = String::new();
    for row in findings.rows.iter().filter(|row| !row.histogram.is_empty()) {
        histograms += &histogram(row)?;
    }
    let rows: Vec<&Row> = findings.rows.iter().collect();
    let mut numbers = format!("<pre>{}</pre>", escaped(&findings.table()));
    if !peers.is_empty() {
        let table = super::peers::table(findings, peers);
        numbers += &format!("<pre>{}</pre>", escaped(&table));
    }
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Bullpen: the bench</title>\
         <style>body{{font:15px sans-serif;margin:2em;max-width:1150px}}pre{{overflow-x:auto}}svg{{margin:4px}}</style></head><body>\
         <h1>What a trap and a resume cost</h1><p>Instructions, counted by QEMU; shorter is better, the scale is logarithmic.</p>\
         {}<h2>Every sample</h2>{histograms}<h2>Numbers</h2>{numbers}</body></html>\n",
        chart(&rows, peers, DECADE_OF_ALL)?,
    );
    std::fs::write(path, page).with_context(|| path.display().to_string())
}

/// Draws the rows that have a bar: Bullpen, the bar, and the best Xen and KVM of those measured here and those in `bars`.
pub(crate) fn picture(findings: &Findings, peers: &[Measured]) -> anyhow::Result<String> {
    let has_peer =
        |bar: &Bar| bar.bar.is_some_and(|bar| bar < 2000) && bar.xen.or(bar.kvm).is_some();
    let rows: Vec<&Row> = findings
        .rows
        .iter()
        .filter(|row| bars::of(&row.name).is_some_and(has_peer))
        .collect();
    chart(&rows, peers, DECADE)
}

/// One line of a row: what it shows, its value and colour, and what is said if there is none.
type Line = (Option<u64>, RGBColor, &'static str);

/// What is drawn of a row.
fn lines(row: &Row, peers: &[Measured]) -> [Line; 4] {
    let bar = bars::of(&row.name);
    let measured = |names: &[&str]| {
        let ours = peers.iter().filter(|peer| names.contains(&peer.name()));
        ours.filter_map(|peer| Some(peer.row(&row.name)?.median))
            .min()
    };
    let best =
        |measured: Option<u64>, published: Option<u64>| measured.into_iter().chain(published).min();
    let xen = best(measured(&["xen", "xen-best"]), bar.and_then(|bar| bar.xen));
    let kvm = best(measured(&["kvm"]), bar.and_then(|bar| bar.kvm));
    [
        (Some(row.median), OURS, ""),
        (bar.and_then(|bar| bar.bar), BAR, "no bar"),
        (xen, XEN, "no Xen"),
        (kvm, KVM, "no KVM"),
    ]
}

/// Draws rows as groups of bars; `decade` is the length of a power of ten in pixels.
fn chart(rows: &[&Row], peers: &[Measured], decade: f64) -> anyhow::Result<String> {
    let height = MARGIN + GROUP * u32::try_from(rows.len())?;
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        legend(&root)?;
        let font = ("sans-serif", 13).into_font();
        let small = ("sans-serif", 10).into_font();
        for (at, row) in (0..).zip(rows) {
            let top = 44 + at * i32::try_from(GROUP)?;
            let what = bars::of(&row.name).map_or(row.name.as_str(), |bar| bar.what);
            root.draw(&Text::new(what, (8, top + 12), font.clone()))
                .map_err(drawing)?;
            for (line, (value, colour, none)) in (0..).zip(lines(row, peers)) {
                let y = top + line * 9;
                let end = LEFT + value.map_or(0, |value| length(value, decade));
                if value.is_some() {
                    root.draw(&Rectangle::new([(LEFT, y), (end, y + 8)], colour.filled()))
                        .map_err(drawing)?;
                }
                let said =
                    value.map_or_else(|| none.to_owned(), |value| format!("{value}{}", unit(row)));
                root.draw(&Text::new(said, (end + 4, y - 1), small.clone()))
                    .map_err(drawing)?;
            }
        }
        root.present().map_err(drawing)?;
    }
    Ok(text)
}

/// Says which colour is whose.
fn legend<Backend: DrawingBackend>(
    root: &DrawingArea<Backend, plotters::coord::Shift>,
) -> anyhow::Result<()>
where
    Backend::ErrorType: 'static,
{
    let font = ("sans-serif", 13).into_font();
    let entries = [
        ("Bullpen", OURS),
        ("our bar", BAR),
        ("Xen", XEN),
        ("KVM", KVM),
    ];
    for (at, (name, colour)) in (0..).zip(entries) {
        let x = LEFT + at * 100;
        root.draw(&Rectangle::new([(x, 12), (x + 14, 26)], colour.filled()))
            .map_err(drawing)?;
        root.draw(&Text::new(name, (x + 20, 13), font.clone()))
            .map_err(drawing)?;
    }
    let scale = "instructions, logarithmic scale: shorter is better";
    root.draw(&Text::new(scale, (810, 13), font))
        .map_err(drawing)
}

/// What a row counts, where that is not instructions.
fn unit(row: &Row) -> &'static str {
    match row.name.as_str() {
        "linux-resize-online" => " ns",
        name if name.starts_with("linux-") => " exits",
        _ => "",
    }
}

/// The length of a bar in pixels.
fn length(value: u64, decade: f64) -> i32 {
    ((value.max(1) as f64).log10() * decade) as i32
}

fn histogram(row: &Row) -> anyhow::Result<String> {
    let most = row.histogram.iter().map(|&(_, count)| count).max();
    let most = most.unwrap_or(1);
    let (low, high) = (row.min.saturating_sub(10), row.max + 10);
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, HISTOGRAM).into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(&row.name, ("sans-serif", 13))
            .margin(8)
            .x_label_area_size(22)
            .y_label_area_size(40)
            .build_cartesian_2d(low..high, 0..most + 1)
            .map_err(drawing)?;
        chart
            .configure_mesh()
            .x_labels(4)
            .y_labels(3)
            .disable_x_mesh()
            .draw()
            .map_err(drawing)?;
        let half = (high - low).div_ceil(120);
        let bars = row.histogram.iter().map(|&(value, count)| {
            let left = value.saturating_sub(half);
            Rectangle::new([(left, 0), (value + half, count)], OURS.filled())
        });
        chart.draw_series(bars).map_err(drawing)?;
        root.present().map_err(drawing)?;
    }
    Ok(text)
}

fn drawing<E: std::fmt::Display>(error: E) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        // Writing to a string cannot fail.
        let _ = match c {
            '<' => safe.write_str("&lt;"),
            '&' => safe.write_str("&amp;"),
            _ => safe.write_char(c),
        };
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_alone_and_holds_every_row() {
        let mut row = Row::single("sgi-self", 174);
        row.histogram = vec![(170, 3), (174, 9)];
        let findings = Findings {
            rows: vec![row],
            ..Findings::default()
        };
        let path = std::env::temp_dir().join(format!("bullpen-{}.html", std::process::id()));
        write(&path, &findings, &[]).unwrap();
        let page = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("SGI to self") && page.contains("1029") || page.contains("960"));
        assert!(!page.contains("src=") && !page.contains("<script") && !page.contains("href="));
    }

    #[test]
    fn what_a_row_has_not_is_said() {
        let ours = Row::single("gicr-typer-read", 152);
        let drawn = chart(&[&ours], &[], DECADE).unwrap();
        for none in ["152", "no bar", "no Xen", "no KVM"] {
            assert!(drawn.contains(none), "{none}");
        }
        let drawn = chart(&[&Row::single("linux-boot-exits", 633)], &[], DECADE).unwrap();
        assert!(drawn.contains("633 exits") && drawn.contains("54900 exits"));
    }
}
