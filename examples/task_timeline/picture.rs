//! The journals as a picture: a line for each task, thick where it runs and thin where it waits.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::TASKS;
use crate::journal::{Doing, Span};

const WIDTH: u32 = 960;
const LEFT: i32 = 40;
const RIGHT: i32 = 20;
/// Of one task.
const LANE: i32 = 26;
/// Of the heading of one run.
const HEADING: i32 = 34;
/// Of the axis below all.
const AXIS: i32 = 40;
const COLORS: [RGBColor; 3] =
    [RGBColor(0xd9, 0x5f, 0x02), RGBColor(0x1f, 0x5f, 0xa8), RGBColor(0x4d, 0x9a, 0x4d)];

pub(crate) fn draw(path: &Path, runs: &[(&str, Vec<Span>)]) -> Result<(), Box<dyn Error>> {
    let of_run = HEADING + LANE * TASKS.len() as i32;
    let bottom = of_run * runs.len() as i32 + 10;
    let area = SVGBackend::new(path, (WIDTH, (bottom + AXIS) as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let ends = runs.iter().flat_map(|(_, spans)| spans).map(|span| span.to.as_secs_f64());
    let scale = f64::from(WIDTH as i32 - LEFT - RIGHT) / ends.fold(0.001, f64::max);
    let x = |seconds: f64| LEFT + (seconds * scale) as i32;
    let font = |size: i32| ("sans-serif", size).into_font();
    for (index, (name, spans)) in runs.iter().enumerate() {
        let top = of_run * index as i32;
        let end = spans.iter().map(|span| span.to).max().unwrap_or_default();
        let heading = format!("{name}: {} ms", end.as_millis());
        area.draw(&Text::new(heading, (LEFT, top + 14), font(15)))?;
        for (lane, (task, color)) in TASKS.iter().zip(COLORS).enumerate() {
            let middle = top + HEADING + LANE * lane as i32 + LANE / 2;
            area.draw(&Text::new(task.name, (LEFT - 22, middle - 7), font(15).color(&color)))?;
            for span in spans.iter().filter(|span| span.task == task.name) {
                let (half, fill) = match span.doing {
                    Doing::Running => (9, color.filled()),
                    Doing::Waiting | Doing::Done => (2, color.mix(0.4).filled()),
                };
                let corners = [
                    (x(span.from.as_secs_f64()), middle - half),
                    (x(span.to.as_secs_f64()), middle + half),
                ];
                area.draw(&Rectangle::new(corners, fill))?;
            }
        }
    }
    let mut at = 0;
    while x(f64::from(at) / 1000.0) <= WIDTH as i32 - RIGHT {
        let x = x(f64::from(at) / 1000.0);
        area.draw(&PathElement::new(vec![(x, 0), (x, bottom)], BLACK.mix(0.1)))?;
        area.draw(&Text::new(format!("{at} ms"), (x, bottom + 4), font(12)))?;
        at += 50;
    }
    let legend = "thick: runs; thin: waits for the server, or for its turn";
    area.draw(&Text::new(legend, (LEFT, bottom + 22), font(12)))?;
    area.present()?;
    Ok(())
}
