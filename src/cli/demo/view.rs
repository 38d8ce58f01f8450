//! The demonstration on a terminal.

use super::world::{FRAME, World};
use super::{Shown, clock};
use crate::control::status::{Command, Status};
use crate::model::Market;
use crate::sim::front::{Condition, MachinePicture, Picture};
use anyhow::Context;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, BorderType, Chart, Dataset, GraphType, Paragraph, Wrap};
use ratatui::{DefaultTerminal, Frame};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// How much of the past the chart shows, in hours.
const PAST_HOURS: f64 = 12.0;
/// One point of the chart stands for so much time, in hours.
const POINT_HOURS: f64 = 0.05;
/// How many decisions are shown.
const DECISIONS: usize = 40;
/// How wide the bar of a machine's CPU is.
const BAR: usize = 10;

const DEMAND: Color = Color::LightYellow;
const CAPACITY: Color = Color::LightCyan;

/// Shows the world until it ends or somebody has seen enough.
pub(super) fn show(
    world: &mut World,
    status: &watch::Receiver<Arc<Status>>,
    commands: &mpsc::Sender<Command>,
    shown: &Shown,
) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init().context("the terminal (--lines does without)")?;
    let outcome = watch_it(&mut terminal, world, status, commands, shown);
    ratatui::restore();
    outcome
}

fn watch_it(
    terminal: &mut DefaultTerminal,
    world: &mut World,
    status: &watch::Receiver<Arc<Status>>,
    commands: &mpsc::Sender<Command>,
    shown: &Shown,
) -> anyhow::Result<()> {
    let mut scene =
        Scene { past: VecDeque::new(), speed: shown.speed, where_to: format!("http://{}  {}", shown.address, shown.socket.display()) };
    while !world.is_over() {
        let latest = world.pictures.borrow_and_update().clone();
        if let Some(picture) = latest {
            scene.remember(&picture);
            let status = status.borrow().clone();
            terminal.draw(|frame| scene.draw(frame, &picture, &status))?;
        }
        if event::poll(FRAME)? {
            let key = match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => key,
                _ => continue,
            };
            match wish(key) {
                Some(Wish::Leave) => return Ok(()),
                Some(Wish::Faster) => scene.speed = (scene.speed * 2.0).min(100_000.0),
                Some(Wish::Slower) => scene.speed = (scene.speed / 2.0).max(1.0),
                Some(Wish::TogglePause) => toggle_pause(commands, &status.borrow()),
                None => {}
            }
            world.set_speed(scene.speed);
        }
    }
    Ok(())
}

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Leave,
    Faster,
    Slower,
    TogglePause,
}

fn wish(key: KeyEvent) -> Option<Wish> {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Leave),
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Leave),
        KeyCode::Char('+' | '=') => Some(Wish::Faster),
        KeyCode::Char('-') => Some(Wish::Slower),
        KeyCode::Char('p') => Some(Wish::TogglePause),
        _ => None,
    }
}

fn toggle_pause(commands: &mpsc::Sender<Command>, status: &Status) {
    let (done, _) = oneshot::channel();
    let by = "the keyboard".to_owned();
    let command =
        if status.pause.is_some() { Command::Resume { by, done } } else { Command::Pause { by, reason: "a key was pressed".into(), done } };
    // A full queue is no harm: the key can be pressed again.
    let _ = commands.try_send(command);
}

/// What is drawn.
struct Scene {
    /// Hours, demand and capacity.
    past: VecDeque<(f64, f64, f64)>,
    speed: f64,
    where_to: String,
}

impl Scene {
    fn remember(&mut self, picture: &Picture) {
        let hours = picture.elapsed.as_secs_f64() / 3600.0;
        if self.past.back().is_none_or(|(last, ..)| hours - last >= POINT_HOURS) {
            self.past.push_back((hours, picture.demand, picture.capacity));
        }
        while self.past.front().is_some_and(|(first, ..)| hours - first > PAST_HOURS) {
            self.past.pop_front();
        }
    }

    fn draw(&self, frame: &mut Frame<'_>, picture: &Picture, status: &Status) {
        let [head, body, decisions, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(12), Constraint::Percentage(35), Constraint::Length(1)])
                .areas(frame.area());
        let [fleet, right] = Layout::horizontal([Constraint::Percentage(52), Constraint::Percentage(48)]).areas(body);
        let [chart, money] = Layout::vertical([Constraint::Min(8), Constraint::Length(7)]).areas(right);
        frame.render_widget(self.headline(picture, status), head);
        self.draw_fleet(frame, fleet, picture);
        self.draw_chart(frame, chart);
        frame.render_widget(figures(picture), money);
        frame.render_widget(told(picture, status), decisions);
        let keys = Line::from(vec![
            " q ".bold(),
            "leave  ".into(),
            " p ".bold(),
            "pause  ".into(),
            " + - ".bold(),
            "speed   ".into(),
            self.where_to.as_str().dim(),
        ]);
        frame.render_widget(keys, foot);
    }

    fn headline(&self, picture: &Picture, status: &Status) -> Line<'_> {
        let leader = picture.leader.map_or_else(|| "nobody leads".to_owned(), |leader| format!("server-{leader} leads"));
        let mut parts = vec![" node-fleet ".bold().reversed(), format!("  {}  ×{}  {leader}", clock(picture), self.speed).into()];
        if let Some(pause) = &status.pause {
            parts.push(format!("  PAUSED by {}", pause.by).bold().yellow());
        }
        if !picture.violations.is_empty() {
            parts.push(format!("  {} BROKEN INVARIANTS", picture.violations.len()).bold().light_red());
        }
        for fault in &picture.faults {
            parts.push(format!("  {fault}").bold().light_red());
        }
        Line::from(parts)
    }

    #[expect(clippy::unused_self, reason = "it is drawn beside what needs the scene")]
    fn draw_fleet(&self, frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
        let mut zones: Vec<(&str, Vec<&MachinePicture>)> = Vec::new();
        for machine in &picture.machines {
            match zones.last_mut() {
                Some((zone, machines)) if *zone == machine.zone.as_str() => machines.push(machine),
                Some(_) | None => zones.push((machine.zone.as_str(), vec![machine])),
            }
        }
        let shares = zones.iter().map(|(_, machines)| Constraint::Fill(u16::try_from(machines.len() + 2).unwrap_or(u16::MAX)));
        for ((zone, machines), area) in zones.iter().zip(Layout::vertical(shares).split(area).iter()) {
            let lines: Vec<Line<'_>> = machines.iter().map(|machine| machine_line(machine)).collect();
            frame.render_widget(Paragraph::new(lines).block(block(&format!("{zone}: {}", machines.len()))), *area);
        }
    }

    fn draw_chart(&self, frame: &mut Frame<'_>, area: Rect) {
        let demand: Vec<(f64, f64)> = self.past.iter().map(|(hours, demand, _)| (*hours, *demand)).collect();
        let capacity: Vec<(f64, f64)> = self.past.iter().map(|(hours, _, capacity)| (*hours, *capacity)).collect();
        let first = self.past.front().map_or(0.0, |(hours, ..)| *hours);
        let most = self.past.iter().map(|(_, demand, capacity)| demand.max(*capacity)).fold(1.0, f64::max) * 1.1;
        let line = |name, points, colour| {
            Dataset::default().name(name).marker(Marker::Braille).graph_type(GraphType::Line).style(Style::new().fg(colour)).data(points)
        };
        let bounds = [first, (first + PAST_HOURS).max(first + POINT_HOURS)];
        let hours = [format!("{first:.0} h"), format!("{:.0} h", bounds[1])];
        let cores = ["0".to_owned(), format!("{:.0}", most / 2.0), format!("{most:.0}")];
        let chart = Chart::new(vec![line("capacity", &capacity, CAPACITY), line("demand", &demand, DEMAND)])
            .block(block("cores"))
            .x_axis(Axis::default().bounds(bounds).labels(hours).style(Style::new().dim()))
            .y_axis(Axis::default().bounds([0.0, most]).labels(cores).style(Style::new().dim()));
        frame.render_widget(chart, area);
    }
}

fn block(title: &str) -> Block<'static> {
    Block::bordered().border_type(BorderType::Rounded).border_style(Style::new().dim()).title(format!(" {title} ").bold())
}

fn machine_line(machine: &MachinePicture) -> Line<'static> {
    let (mark, colour, word) = match machine.condition {
        Condition::Booting => ("◌", Color::LightCyan, "boots"),
        Condition::Ready => ("●", Color::LightGreen, ""),
        Condition::Cordoned => ("◐", Color::LightYellow, "drains"),
        Condition::Interrupted => ("▼", Color::LightRed, "interrupted"),
        Condition::NotReady => ("○", Color::Red, "not ready"),
    };
    let market = match machine.market {
        Market::Spot => Span::styled("spot     ", Style::new().fg(Color::LightMagenta)),
        Market::OnDemand => Span::styled("on-demand", Style::new().fg(Color::LightBlue)),
    };
    let mut parts = vec![Span::styled(format!("{mark} "), Style::new().fg(colour)), format!("{:<12}", machine.name).into(), market];
    parts.push(format!(" {:<11}", machine.kind).dim());
    if word.is_empty() || machine.condition == Condition::Cordoned {
        parts.push(Span::styled(bar(machine.cpu), Style::new().fg(heat(machine.cpu))));
        parts.push(format!(" {:>3.0} % {:>3} pods ", machine.cpu * 100.0, machine.pods).into());
    }
    parts.push(Span::styled(word, Style::new().fg(colour).add_modifier(Modifier::BOLD)));
    Line::from(parts)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a bar is short")]
fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

fn heat(share: f64) -> Color {
    match share {
        share if share > 0.85 => Color::LightRed,
        share if share > 0.7 => Color::LightYellow,
        _ => Color::Green,
    }
}

fn figures(picture: &Picture) -> Paragraph<'static> {
    let spot = picture.machines.iter().filter(|machine| machine.market == Market::Spot).count();
    let saved = if picture.peak_spent > 0.0 { (1.0 - picture.spent / picture.peak_spent) * 100.0 } else { 0.0 };
    let waiting = format!("{} wait", picture.waiting);
    let lines = vec![
        Line::from(vec![format!("{} nodes", picture.machines.len()).bold(), format!(", {spot} of them spot").into()]),
        Line::from(vec![
            format!("{} pods run, ", picture.running).into(),
            if picture.waiting > 0 { waiting.bold().light_red() } else { waiting.into() },
        ]),
        Line::from(vec![format!("${:.3} an hour", picture.hourly).bold(), format!(", ${:.2} so far", picture.spent).into()]),
        Line::from(format!("always at the peak, on demand: ${:.2}", picture.peak_spent)),
        Line::from(vec![format!("{saved:.0} % saved").bold().light_green()]),
    ];
    Paragraph::new(lines).block(block("fleet"))
}

/// The latest decisions with their reasons, and what happened.
fn told<'a>(picture: &'a Picture, status: &'a Status) -> Paragraph<'a> {
    let mut lines: Vec<(String, Line<'a>)> = Vec::new();
    let begin = picture.wall - jiff::SignedDuration::try_from(picture.elapsed).unwrap_or_default();
    for decision in status.decisions.iter().take(DECISIONS) {
        let since = decision.at.duration_since(begin);
        let at = format!("{:>3}:{:02}:{:02}", since.as_hours(), since.as_mins() % 60, since.as_secs() % 60);
        for action in &decision.plan.actions {
            lines.push((at.clone(), Line::from(vec![format!("{at}  ").dim(), action.to_string().bold()])));
        }
    }
    for line in picture.log.1.iter().rev().take(DECISIONS) {
        lines.push((line.clone(), Line::from(line.as_str().dim())));
    }
    lines.sort_by(|(a, _), (b, _)| b.cmp(a));
    Paragraph::new(lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>())
        .wrap(Wrap { trim: false })
        .block(block("decisions and events"))
}
