"""Does what a user in a browser does for the example `login_browser`: logs in, allows it, and comes back to the terminal."""

import re
import subprocess
import sys
import urllib.parse
import urllib.request
from html.parser import HTMLParser


class Form(HTMLParser):
    """The first form of a page, with the values that it comes with."""

    def __init__(self, page):
        super().__init__()
        self.fields = {}
        self.buttons = []
        self.action = None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form" and self.action is None:
            self.action = attributes.get("action", "")
        elif tag == "input" and "name" in attributes:
            self.fields[attributes["name"]] = attributes.get("value") or ""
        elif tag == "button":
            self.buttons.append(attributes)


def read(request):
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.url, response.read().decode()


def submit(url, page, button=None, **values):
    form = Form(page)
    fields = {**form.fields, **values}
    if button:
        fields[button["name"]] = button["value"]
    data = urllib.parse.urlencode(fields).encode()
    return read(urllib.request.Request(urllib.parse.urljoin(url, form.action), data=data))


example = subprocess.Popen([sys.argv[1]], stdout=subprocess.PIPE, text=True)
try:
    head = ""
    while not (found := re.search(r"^(http\S+/services/oauth2/authorize\S+)$", head, re.M)):
        line = example.stdout.readline()
        assert line, f"the example ended early:\n{head}"
        head += line
    username, password = re.search(r"Its user is (\S+), with the password (.+)\.", head).groups()
    url, page = read(found[1])
    url, page = submit(url, page, username=username, password=password)
    buttons = Form(page).buttons
    assert buttons, page
    allow = next(button for button in buttons if button.get("value") == "allow")
    url, page = submit(url, page, button=allow)
    assert "continue in the terminal" in page, page
    rest = example.stdout.read()
    assert example.wait(timeout=20) == 0, rest
    for expected in (f"{username} of org ", "A request: 200 OK", "the grant is revoked"):
        assert expected in rest, rest
    print("ok   login_browser: log in, allow, come back, refresh, log out")
finally:
    example.kill()
