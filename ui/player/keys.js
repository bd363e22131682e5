// The keyboard. Keys act while focus is anywhere inside the player, except where an element has a better
// use for them: buttons keep Space and Enter, menus keep everything but Escape and `?`.

export function listen(root, act) {
  const actions = {
    ' ': act.toggle,
    ArrowLeft: () => act.step(-1),
    ArrowRight: () => act.step(1),
    Home: act.first,
    End: act.last,
    '[': () => act.changeSpeed(-1),
    ']': () => act.changeSpeed(1),
    '?': act.help,
    Escape: act.escape,
  };
  for (let n = 1; n <= 9; n += 1) actions[n] = () => act.panel(n - 1);
  const onKey = (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
    const { target, key } = event;
    if (target.matches('select') && key !== 'Escape' && key !== '?') return;
    if (target.matches('input:not([type=range]), textarea') && key !== 'Escape') return;
    if (target.matches('button, summary') && (key === ' ' || key === 'Enter')) return;
    if (act.cellKey(event)) {
      event.preventDefault();
      return;
    }
    if (!Object.hasOwn(actions, key)) return;
    event.preventDefault();
    actions[key]();
  };
  root.addEventListener('keydown', onKey);
  return () => root.removeEventListener('keydown', onKey);
}
