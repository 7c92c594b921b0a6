'use strict';
(() => {
  const SIZE = 600, HEIGHT = 40, RETRY = 3000;
  const one = (id) => document.getElementById(id);
  const all = (query, at = document) => [...at.querySelectorAll(query)];
  const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const mark = (element, mood) => { if (element.dataset.mood !== mood) element.dataset.mood = mood; };

  const live = one('live'), pause = one('pause'), rows = one('tasks');
  const pools = [];
  for (const element of all('[data-pool]')) {
    const pool = pools[element.dataset.pool] ??= { marked: [], cells: [], lines: [], more: null, series: [] };
    pool.marked.push(element);
    for (const cell of all('[data-c]', element)) (pool.cells[cell.dataset.c] ??= []).push(cell);
    pool.lines.push(...all('svg', element));
    pool.more ??= element.querySelector('.more');
  }
  let tick = 0, source = null, paused = false, timer = 0;

  // A path through the known values; its gaps are values that are not known.
  function path(values, top, closed) {
    let text = '', from = -1;
    const x = (index) => SIZE - values.length + index;
    const y = (value) => (HEIGHT - 1 - (HEIGHT - 4) * value / top).toFixed(1);
    for (let index = 0; index <= values.length; index++) {
      const value = index < values.length ? values[index] : null;
      if (value === null || value === undefined) {
        if (from >= 0 && closed) text += `V${HEIGHT}H${x(from)}Z`;
        else if (from === index - 1 && from >= 0) text += 'h.5';
        from = -1;
      } else if (from < 0) {
        text += closed ? `M${x(index)},${HEIGHT}V${y(value)}` : `M${x(index)},${y(value)}`;
        from = index;
      } else {
        text += `L${x(index)},${y(value)}`;
      }
    }
    return text;
  }

  function draw() {
    for (const pool of pools) {
      for (const svg of pool.lines) {
        const solid = pool.series[svg.dataset.line] ?? [], dashed = pool.series[svg.dataset.dashed] ?? [];
        const top = solid.concat(dashed).reduce((most, value) => Math.max(most, value ?? 0), 0) || 1;
        svg.querySelector('.area').setAttribute('d', path(solid, top, true));
        svg.querySelector('.line').setAttribute('d', path(solid, top, false));
        svg.querySelector('.dashed')?.setAttribute('d', path(dashed, top, false));
      }
    }
  }

  function element(name, text, className) {
    const made = document.createElement(name);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function list(tasks) {
    rows.replaceChildren(...tasks.map((task) => {
      const row = document.createElement('tr'), does = element('td', task.does);
      const name = element('th', task.task);
      name.scope = 'row';
      if (task.stuck) {
        row.className = 'stuck';
        does.prepend(element('strong', 'stuck'), ': ');
      }
      row.append(name, element('td', task.function), element('td', task.time, 'n'), does);
      return row;
    }));
    one('table').hidden = tasks.length === 0;
  }

  function observe(slow) {
    one('slow').replaceChildren(...slow.map((route) => {
      const row = document.createElement('tr'), name = element('th', route.route);
      name.scope = 'row';
      row.append(name, element('td', route.long_polls, 'n'), element('td', route.longest, 'n'));
      return row;
    }));
    one('observed').hidden = slow.length === 0;
  }

  function show(frame) {
    pools.forEach((pool, index) => {
      const shown = frame.pools[index], points = frame.points[index];
      // Frames that this viewer has missed are gaps.
      for (let missed = Math.min(frame.n - tick - 1, SIZE); missed > 0; missed--) pool.series.forEach((line) => line.push(null));
      if (frame.n > tick) pool.series.forEach((line, number) => line.push(points[number]));
      pool.series.forEach((line) => line.splice(0, line.length - SIZE));
      pool.marked.forEach((marked) => mark(marked, shown.mood));
      shown.cells.forEach((text, number) => pool.cells[number]?.forEach((cell) => put(cell, text)));
      const more = JSON.stringify(shown.more);
      if (pool.shown !== more) {
        pool.shown = more;
        pool.more.replaceChildren(...shown.more.flatMap(([label, text]) => [element('dt', label), element('dd', text)]));
      }
    });
    tick = frame.n;
    // This is read aloud, so it changes with the states only.
    const summary = one('summary');
    put(summary, frame.summary);
    mark(summary, frame.mood);
    const stuck = one('stuck');
    put(stuck.firstChild, frame.stuck);
    stuck.hidden = frame.stuck === '';
    put(one('load'), frame.load);
    put(one('note'), frame.note);
    list(frame.tasks);
    observe(frame.slow);
    draw();
  }

  function close(text) {
    clearTimeout(timer);
    source?.close();
    source = null;
    put(live, text);
  }

  function again(text) {
    close(text);
    timer = setTimeout(open, RETRY);
  }

  function open() {
    close('Connecting …');
    // The URL of this page, whatever its prefix is.
    source = new EventSource('');
    source.onerror = () => again('No connection: trying again.');
    source.addEventListener('history', (event) => {
      const { n, page, pools: series } = JSON.parse(event.data);
      // Another version of the server, or other settings.
      if (page !== document.body.dataset.page) return location.reload();
      tick = n;
      pools.forEach((pool, index) => { pool.series = series[index]; });
      put(live, 'Live');
    });
    source.addEventListener('drain', () => again('The server is shutting down: trying again.'));
    source.onmessage = (event) => show(JSON.parse(event.data));
  }

  function decide() {
    if (paused) close('Paused');
    else if (document.hidden) close('Not live: the page is hidden');
    else open();
  }

  pause.hidden = false;
  pause.onclick = () => {
    paused = !paused;
    pause.setAttribute('aria-pressed', paused);
    decide();
  };
  document.addEventListener('visibilitychange', decide);
  decide();
})();
