"""simple-salesforce against the org that `run` has started."""

import json
import os
import unittest

import requests
from simple_salesforce import Salesforce, SalesforceLogin, exceptions
from simple_salesforce.login import SalesforceAuthenticationFailed

ORG = json.loads(os.environ["ORG"])
HOST = ORG["base_url"].removeprefix("http://")
QUERY = "SELECT Id, Name FROM Account LIMIT 3"


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


USER = {
    "username": ORG["username"],
    "password": ORG["password"],
    "security_token": ORG["security_token"],
}
APP = {"consumer_key": ORG["client_id"], "consumer_secret": ORG["client_secret"]}
PASSWORD_GRANT = APP | {
    "username": ORG["username"],
    "password": ORG["password"] + ORG["security_token"],
}
JWT = {
    "username": ORG["username"],
    "consumer_key": ORG["client_id"],
    "privatekey_file": ORG["jwt_private_key"],
}
CLIENT_CREDENTIALS = APP | {"domain": "MyDomainName.my"}
LOGINS = {
    "SOAP": USER,
    "password": PASSWORD_GRANT,
    "JWT bearer": JWT,
    "client credentials": CLIENT_CREDENTIALS,
}


class LoginTest(unittest.TestCase):
    def check(self, **credentials):
        sf = Salesforce(session=session(), **credentials)
        self.assertEqual(sf.sf_instance, HOST)
        self.assertEqual(sf.query(QUERY)["records"][0]["Name"], "Acme")

    def test_soap_login(self):
        self.check(**USER)

    def test_soap_login_to_an_org_by_its_id(self):
        pull("require-security-token", required=False)
        try:
            user = {"username": ORG["username"], "password": ORG["password"]}
            self.check(organizationId="00Dxx0000001gEF", **user)
        finally:
            pull("require-security-token", required=True)

    def test_soap_login_refused(self):
        with self.assertRaises(SalesforceAuthenticationFailed) as raised:
            self.check(**USER | {"security_token": "wrong"})
        self.assertEqual(raised.exception.code, "INVALID_LOGIN")
        message = "Invalid username, password, security token; or user locked out."
        self.assertIn(message, str(raised.exception))

    def test_soap_login_at_a_version_that_has_none(self):
        with self.assertRaises(SalesforceAuthenticationFailed) as raised:
            self.check(**USER, version="65.0")
        self.assertEqual(raised.exception.code, "INVALID_OPERATION")

    def test_password_grant(self):
        self.check(**PASSWORD_GRANT)

    def test_password_grant_refused(self):
        with self.assertRaises(SalesforceAuthenticationFailed) as raised:
            self.check(**PASSWORD_GRANT | {"password": "wrong"})
        self.assertEqual(raised.exception.code, "invalid_grant")
        self.assertIn("authentication failure", str(raised.exception))

    def test_jwt_bearer(self):
        self.check(**JWT)

    def test_jwt_bearer_with_the_key_itself(self):
        with open(ORG["jwt_private_key"], encoding="ascii") as file:
            key = file.read()
        self.check(username=JWT["username"], consumer_key=JWT["consumer_key"], privatekey=key)

    def test_client_credentials(self):
        self.check(**CLIENT_CREDENTIALS)

    def test_client_credentials_refused(self):
        with self.assertRaises(SalesforceAuthenticationFailed) as raised:
            self.check(**CLIENT_CREDENTIALS | {"consumer_secret": "wrong"})
        self.assertEqual(raised.exception.code, "invalid_client")

    def test_login_function(self):
        session_id, instance = SalesforceLogin(session=session(), **USER)
        sf = Salesforce(session=session(), session_id=session_id, instance=instance)
        self.assertEqual(sf.query(QUERY)["totalSize"], 3)


class SessionTest(unittest.TestCase):
    def test_an_expired_session_is_begun_anew_by_a_login_of_the_same_kind(self):
        for kind, credentials in LOGINS.items():
            with self.subTest(kind):
                sf = Salesforce(session=session(), **credentials)
                before = stats()
                pull("expire-sessions")
                self.assertEqual(sf.query(QUERY)["totalSize"], 3)
                after = stats()
                self.assertEqual(after["data_rejected"] - before["data_rejected"], 1)

    def test_an_expired_session_that_was_handed_in_is_not_begun_anew(self):
        session_id, instance = SalesforceLogin(session=session(), **USER)
        sf = Salesforce(session=session(), session_id=session_id, instance=instance)
        pull("expire-sessions")
        with self.assertRaises(exceptions.SalesforceExpiredSession) as raised:
            sf.query(QUERY)
        self.assertEqual(raised.exception.content[0]["errorCode"], "INVALID_SESSION_ID")


class DataTest(unittest.TestCase):
    def setUp(self):
        self.sf = Salesforce(session=session(), **USER)

    def test_create_and_get(self):
        name = "Ünïcode & <Söns>"
        created = self.sf.Account.create({"Name": name})
        self.assertTrue(created["success"])
        self.assertEqual(self.sf.Account.get(created["id"])["Name"], name)

    def test_an_expired_session_of_an_object(self):
        account = self.sf.Account
        pull("expire-sessions")
        self.assertTrue(account.create({"Name": "Later"})["success"])

    def test_limits_and_api_usage(self):
        self.assertEqual(self.sf.limits()["DailyApiRequests"]["Max"], 15000)
        self.assertEqual(self.sf.api_usage["api-usage"].total, 15000)

    def test_bulk_2_ingest(self):
        records = [{"Name": "Bulk"}, {"Name": "Bulk, Inc.,\nof two lines"}]
        (result,) = self.sf.bulk2.Account.insert(records=records)
        self.assertEqual(result["numberRecordsProcessed"], 2)
        self.assertEqual(result["numberRecordsFailed"], 0)

    def test_malformed_query(self):
        with self.assertRaises(exceptions.SalesforceMalformedRequest) as raised:
            self.sf.query("SELECT")
        self.assertEqual(raised.exception.content[0]["errorCode"], "MALFORMED_QUERY")


if __name__ == "__main__":
    unittest.main()
