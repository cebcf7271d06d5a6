"""What the tests of the Python clients share: the org that `run` has started, and its controls."""

import json
import os

import requests

ORG = json.loads(os.environ["ORG"])
HOST = ORG["base_url"].removeprefix("http://")


class ToTheOrg(requests.adapters.HTTPAdapter):
    """Takes what is meant for Salesforce, or for the org by https, to the org."""

    def send(self, request, **kwargs):
        scheme_and_host = "/".join(request.url.split("/")[:3])
        request.url = ORG["base_url"] + request.url.removeprefix(scheme_and_host)
        return super().send(request, **kwargs | {"proxies": None})


def session():
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", ToTheOrg())
    return session


def pull(lever, **parameters):
    response = session().post(f"{ORG['base_url']}/emulator/{lever}", json=parameters)
    assert response.status_code == 200, response.text


def stats():
    return session().get(f"{ORG['base_url']}/emulator/stats").json()
