"""simple-salesforce against the org that `run` has started."""

import unittest

from simple_salesforce import Salesforce, SalesforceLogin, exceptions
from simple_salesforce.login import SalesforceAuthenticationFailed

from python_support import HOST, ORG, pull, session, stats

QUERY = "SELECT Id, Name FROM Account LIMIT 3"

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

    def test_the_user(self):
        user = self.sf.User.get("005xx000001SwiUAAS")
        self.assertEqual(user["Username"], ORG["username"])
        pull("expire-sessions")
        found = self.sf.query(f"SELECT Name FROM User WHERE Username = '{ORG['username']}'")
        self.assertEqual(found["records"][0]["Name"], "Ann Example")

    def test_update_and_delete(self):
        id = self.sf.Account.create({"Name": "Before"})["id"]
        self.assertEqual(self.sf.Account.update(id, {"Name": "After"}), 204)
        self.assertEqual(self.sf.Account.get(id)["Name"], "After")
        self.assertEqual(self.sf.Account.delete(id), 204)
        with self.assertRaises(exceptions.SalesforceResourceNotFound):
            self.sf.Account.get(id)

    def test_describe(self):
        names = [one["name"] for one in self.sf.describe()["sobjects"]]
        self.assertEqual(names, ["Account", "Contact", "Organization", "User"])
        self.assertEqual(self.sf.User.describe()["keyPrefix"], "005")

    def test_query_all_iter(self):
        found = self.sf.query_all_iter("SELECT Name FROM Account WHERE Name IN ('Acme', 'Globex')")
        self.assertEqual([record["Name"] for record in found], ["Acme", "Globex"])

    def test_a_retired_version(self):
        sf = Salesforce(session=session(), session_id=self.sf.session_id, instance=HOST, version="30.0")
        with self.assertRaises(exceptions.SalesforceGeneralError) as raised:
            sf.query(QUERY)
        self.assertEqual(raised.exception.status, 410)

    def test_malformed_query(self):
        with self.assertRaises(exceptions.SalesforceMalformedRequest) as raised:
            self.sf.query("SELECT")
        self.assertEqual(raised.exception.content[0]["errorCode"], "MALFORMED_QUERY")


if __name__ == "__main__":
    unittest.main()
