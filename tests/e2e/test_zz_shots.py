import pytest
from playwright.sync_api import expect
from tests.e2e.test_edit import Desk, Screen
@pytest.mark.parametrize("theme",["light","dark"])
@pytest.mark.parametrize("w",[1440,390])
def test_shot(served,new_page,theme,w):
    page=new_page(width=w,height=900)
    d=Desk.__new__(Desk); Screen.__init__(d,page,served.url,f"?view=edit&__theme={theme}")
    d.editor=page.locator("#nd-editor .nde"); d.area=page.locator("#nd-editor-text"); expect(d.area).not_to_have_value("")
    served.engine
    page.screenshot(path=f"/tmp/s_{w}_{theme}_0.png",full_page=w==390)
    if theme=="light":
        d.press("Fill"); d.result("Filled text")
        d.editor.screenshot(path=f"/tmp/s_{w}_{theme}_1.png")
    d.example("JSON with two mistakes"); d.select("Max"); d.press("Pin selection"); d.press("Propose changes"); d.result("Changes")
    d.press("Accept change 1"); d.press("Reject change 2") if theme=="dark" else None
    page.screenshot(path=f"/tmp/s_{w}_{theme}_2.png",full_page=True)
