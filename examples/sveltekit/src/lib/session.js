// The session of Supabase's user, in memory. A real page uses @supabase/supabase-js, which also renews it.
import { PUBLIC_SUPABASE_KEY, PUBLIC_SUPABASE_URL } from "$env/static/public";

let session = null;

/** Sign in by password. Throws an Error with a message for people. */
export async function signIn(email, password) {
  const answer = await fetch(`${PUBLIC_SUPABASE_URL}/auth/v1/token?grant_type=password`, {
    method: "POST",
    headers: { apikey: PUBLIC_SUPABASE_KEY, "Content-Type": "application/json" },
    body: JSON.stringify({ email, password }),
  });
  if (!answer.ok) throw new Error("The address or the password is wrong.");
  session = await answer.json();
}

/** Return the user's JWT, which gitstore verifies. */
export const getToken = async () => session.access_token;
